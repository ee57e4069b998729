"""Decodes E2M1 and E4M3 codes and E8M0 scale bytes to floats or bytes: one pure function per method, always exact."""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic
from std.utils import IndexList

from .format import E8M0_NAN, e2m1_value


def _e2m1_table[dtype: DType, width: Int]() -> SIMD[dtype, width]:
    var table = SIMD[dtype, width](0)
    for i in range(width):
        table[i] = e2m1_value(i & 15).cast[dtype]()
    return table


def _e2m1_bf16_table[exponent_bias: Int]() -> SIMD[DType.uint16, 32]:
    var table = bitcast[DType.uint16, 32](_e2m1_table[DType.bfloat16, 32]())
    comptime if exponent_bias:
        for i in range(32):
            table[i] = table[i] + UInt16(exponent_bias << 7) if i & 7 else UInt16(0)
    return table


def _e2m1_int8_table() -> SIMD[DType.uint8, 64]:
    var table = SIMD[DType.uint8, 64](0)
    for i in range(64):
        table[i] = UInt8(Int(2 * e2m1_value(i & 15)) + 12)
    return table


def _lane_halves_apart() -> IndexList[16]:
    """A shuffle within 16 bytes: the low halves of all four 32-bit lanes, then the high ones."""
    var order = IndexList[16]()
    for i in range(16):
        order[i] = i // 8 * 8 + i % 4 * 2 + i // 4 % 2
    return order


def _interleaved(half: Int) -> IndexList[32]:
    """A shuffle within 16 bytes: eight of one vector, each followed by that of the other."""
    var order = IndexList[32]()
    for i in range(32):
        order[i] = i // 16 * 16 + 8 * half + i % 16 // 2 + i % 2 * 32
    return order


def _e2m1_byte_table[shift: Int]() -> SIMD[DType.uint8, 32]:
    """One byte of each value's bfloat16, repeated twice, as a lookup works within 16 bytes."""
    var table = SIMD[DType.uint8, 32](0)
    for i in range(32):
        var bits = bitcast[DType.uint16](e2m1_value(i & 15).cast[DType.bfloat16]())
        table[i] = (bits >> UInt16(shift)).cast[DType.uint8]()
    return table


comptime _E2M1_BF16X32[exponent_bias: Int] = _e2m1_bf16_table[exponent_bias]()
comptime _E2M1_F32X16 = _e2m1_table[DType.float32, 16]()
comptime _E2M1_INT8X64 = _e2m1_int8_table()
comptime _E2M1_BF16_BYTE[shift: Int] = _e2m1_byte_table[shift]()

comptime HAS_BYTE_LOOKUP = CompilationTarget._has_feature["avx2"]() or CompilationTarget.has_neon()
"""Whether the CPU looks up bytes in a table of 16 by one instruction (vpshufb, tbl)."""


@inline(.always)
def _look_up(table: SIMD[DType.uint8, 32], index: SIMD[DType.uint8, 32]) -> SIMD[DType.uint8, 32]:
    """Returns the table's byte at each index below 16; the table holds its 16 bytes twice."""
    comptime if CompilationTarget.has_neon():
        comptime Half = SIMD[DType.uint8, 16]
        comptime name = "llvm.aarch64.neon.tbl1.v16i8"
        var bytes = table.slice[16]()
        return llvm_intrinsic[name, Half, has_side_effect=False](bytes, index.slice[16]()).join(
            llvm_intrinsic[name, Half, has_side_effect=False](bytes, index.slice[16, offset=16]())
        )
    else:
        return llvm_intrinsic[
            "llvm.x86.avx2.pshuf.b", SIMD[DType.uint8, 32], has_side_effect=False
        ](table, index)


@inline(.always)
def decode_e8m0[width: SIMDLength, //](s: SIMD[DType.uint32, width]) -> SIMD[DType.float32, width]:
    """Decodes scale bytes to 2^(s - 127).

    A float32 with exponent field s and mantissa 0 is 2^(s - 127) for 1 <= s <= 254. s = 0 is the subnormal 2^-127,
    whose bits (1 << 22) lie below every other scale's, so one unsigned maximum corrects it. 255 becomes a quiet NaN.

    Parameters:
        width: Lanes.

    Args:
        s: Scale bytes, one to a lane.

    Returns:
        The scales, exact; NaN for 255.
    """
    var bits = max(s << 23, 0x0040_0000)
    bits = s.eq(E8M0_NAN).select(SIMD[DType.uint32, width](0x7FC0_0000), bits)
    return bitcast[DType.float32, width](bits)


@inline(.always)
def decode_e2m1_bf16x32[
    exponent_bias: Int
](codes: SIMD[DType.uint16, 32]) -> SIMD[DType.uint32, 16]:
    """Decodes the low nibble of each 16-bit lane to bfloat16 by one table lookup (AVX-512 BW).

    The table holds the 16 values twice, so the fifth index bit that `vpermw` reads needs no mask.

    Parameters:
        exponent_bias: Values are multiplied by 2 to this power; if it is not 0, both zeros decode to +0.

    Args:
        codes: Codes in bits 0..3 of each lane; higher bits are ignored.

    Returns:
        32 bfloat16 values, two to a 32-bit word, the earlier lane in the low half.
    """
    var values = llvm_intrinsic[
        "llvm.x86.avx512.permvar.hi.512",
        SIMD[DType.uint16, 32],
        has_side_effect=False,
    ](_E2M1_BF16X32[exponent_bias], codes)
    return bitcast[DType.uint32, 16](values)


@inline(.always)
def decode_e2m1_f32[
    width: SIMDLength, //
](codes: SIMD[DType.uint32, width]) -> SIMD[DType.float32, width]:
    """Decodes the low nibble of each 32-bit lane to float32.

    Parameters:
        width: Lanes.

    Args:
        codes: Codes in bits 0..3 of each lane; higher bits are ignored.

    Returns:
        The values, exact.
    """
    comptime if CompilationTarget.has_avx512f() and width == 16:
        return bitcast[DType.float32, width](
            llvm_intrinsic[
                "llvm.x86.avx512.permvar.sf.512",
                SIMD[DType.float32, 16],
                has_side_effect=False,
            ](_E2M1_F32X16, bitcast[DType.uint32, 16](codes))
        )
    else:
        return decode_e2m1_f32_portable(codes)


@inline(.always)
def decode_e2m1_f32x8[v: Int](packed: SIMD[DType.uint32, 8]) -> SIMD[DType.float32, 8]:
    """Decodes nibble v of each 32-bit lane to float32, by byte lookup (AVX2, NEON).

    A value's bfloat16 is two bytes, each looked up in a table of 16. Two lookups of 32 bytes, interleaved, give 16
    bfloat16, two per lane from adjacent bytes, and a shift or a mask makes one of each two a float32. All eight v
    together take 20 instructions, most of them shared.

    Parameters:
        v: Which nibble, from the lowest.

    Args:
        packed: Eight codes to a lane.

    Returns:
        The values, exact.
    """
    var halves = bitcast[DType.uint16, 16](packed).shuffle[mask=_lane_halves_apart()]()
    var bytes = bitcast[DType.uint8, 32](halves)
    var codes = (bytes >> UInt8(4 * (v % 2))) & 0x0F
    var low = _look_up(_E2M1_BF16_BYTE[0], codes)
    var high = _look_up(_E2M1_BF16_BYTE[8], codes)
    var pairs = bitcast[DType.uint32, 8](low.shuffle[mask=_interleaved(v // 4)](high))
    comptime if v // 2 % 2 == 0:
        pairs <<= 16
    else:
        pairs &= 0xFFFF_0000
    return bitcast[DType.float32, 8](pairs)


@inline(.always)
def decode_e2m1_int8[
    width: SIMDLength, //
](codes: SIMD[DType.uint32, width]) -> SIMD[DType.uint32, width]:
    """Decodes the low nibble of each byte to an unsigned byte, twice the value plus 12.

    Parameters:
        width: Lanes.

    Args:
        codes: Codes in bits 0..3 of each byte; higher bits are ignored.

    Returns:
        Bytes 0 to 24.
    """
    var nibbles = codes & 0x0F0F_0F0F
    comptime if CompilationTarget._has_feature["avx512bw"]() and width == 16:
        return bitcast[DType.uint32, width](
            llvm_intrinsic[
                "llvm.x86.avx512.pshuf.b.512",
                SIMD[DType.uint8, 64],
                has_side_effect=False,
            ](_E2M1_INT8X64, bitcast[DType.uint8, 64](nibbles))
        )
    elif HAS_BYTE_LOOKUP and width == 8:
        return bitcast[DType.uint32, width](
            _look_up(
                _E2M1_INT8X64.slice[32](),
                rebind[SIMD[DType.uint8, 32]](bitcast[DType.uint8, 4 * width](nibbles)),
            )
        )
    else:
        # Twice the magnitude in byte arithmetic: (2 + m) << e >> 1, except for e = 0, where it is m.
        comptime Bytes = SIMD[DType.uint8, 4 * width]
        var bytes = bitcast[DType.uint8, 4 * width](nibbles)
        var exponent = (bytes >> 1) & 3
        var mantissa = bytes & 1
        var twice = exponent.eq(0).select(mantissa, ((mantissa + 2) << exponent) >> 1)
        return bitcast[DType.uint32, width]((bytes & 8).eq(0).select(twice + 12, Bytes(12) - twice))


@inline(.always)
def decode_e2m1_f32_portable[
    width: SIMDLength, //
](codes: SIMD[DType.uint32, width]) -> SIMD[DType.float32, width]:
    """Decodes the low nibble of each 32-bit lane to float32 with integer arithmetic only.

    Bits `e1 e0 m` shifted to 24..22 and added to exponent field 126 are the float for e > 0: E2M1's bias is 1,
    float32's 127. The two magnitudes with e = 0, 0 and 0.5, are selected separately.

    Parameters:
        width: Lanes.

    Args:
        codes: Codes in bits 0..3 of each lane; higher bits are ignored.

    Returns:
        The values, exact.
    """
    comptime Bits = SIMD[DType.uint32, width]
    var magnitude = codes & 7
    var bits = (magnitude << 22) + 0x3F00_0000
    bits = magnitude.eq(1).select(Bits(0x3F00_0000), bits)
    bits = magnitude.eq(0).select(Bits(0), bits)
    return bitcast[DType.float32, width](bits | ((codes & 8) << 28))


@inline(.always)
def narrow_exact[
    width: SIMDLength, //, dtype: DType
](values: SIMD[DType.float32, width]) -> SIMD[dtype, width]:
    """Narrows floats that `dtype` represents exactly, subnormals included.

    A hardware conversion to bfloat16 may flush subnormals to zero; dropping the low 16 bits, which are zero in every
    MXFP4 value, cannot.

    Parameters:
        width: Lanes.
        dtype: The target dtype, float32 or bfloat16.

    Args:
        values: Values of an MXFP4 group.

    Returns:
        The same values.
    """
    comptime if dtype == DType.bfloat16:
        var bits = bitcast[DType.uint32, width](values)
        return bitcast[dtype, width]((bits >> 16).cast[DType.uint16]())
    else:
        return values.cast[dtype]()


@inline(.always)
def decode_e4m3_f32[
    width: SIMDLength, //
](codes: SIMD[DType.uint32, width]) -> SIMD[DType.float32, width]:
    """Decodes the low byte of each 32-bit lane from E4M3 to float32; the thread must compute with subnormals.

    Exponent and mantissa, `eeee mmm`, moved to where float32 has its own, are the value times 2^(7 - 127), subnormals
    included; one exact multiplication corrects that. The two NaN codes decode to 480.

    Parameters:
        width: Lanes.

    Args:
        codes: Codes in bits 0..7 of each lane; higher bits are ignored.

    Returns:
        The values, exact.
    """
    var bits = (codes & 0x7F) << 20
    var magnitude = bitcast[DType.float32, width](bits) * Float32(2.0**120)
    return bitcast[DType.float32, width](
        bitcast[DType.uint32, width](magnitude) | ((codes & 0x80) << 24)
    )
