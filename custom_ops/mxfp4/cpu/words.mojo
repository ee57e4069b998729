"""The 32-bit words that CPU kernels multiply: one float32, two bfloat16 or four int8."""

from std.bit import prev_power_of_two
from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of

comptime LANES = max(8, simd_width_of[DType.float32]())
"""Words in a vector register: 16 with AVX-512, 8 with AVX and AVX2, and 8 in a pair of registers with NEON and SSE."""

comptime Words = SIMD[DType.uint32, LANES]
"""A register of words."""

comptime Floats = SIMD[DType.float32, LANES]
"""A register of float32 sums, one to a word."""

comptime HAS_BF16_DOT = CompilationTarget._has_feature["avx512bf16"]() and LANES == 16
"""Whether the CPU multiplies pairs of bfloat16 into float32 sums (vdpbf16ps)."""

comptime HAS_INT8_DOT = (
    LANES == 16
    and CompilationTarget._has_feature["avx512vnni"]()
    or LANES == 8
    and CompilationTarget._has_feature["avxvnni"]()
)
"""Whether the CPU multiplies fours of bytes into int32 sums (vpdpbusd)."""

comptime HAS_INT8_PAIRS = (
    LANES == 16
    and CompilationTarget._has_feature["avx512bw"]()
    or LANES == 8
    and CompilationTarget._has_feature["avx2"]()
)
"""Whether the CPU multiplies pairs of bytes into int16 sums (vpmaddubsw), and pairs of those into int32 (vpmaddwd)."""

comptime HAS_SIGNED_DOT = CompilationTarget._has_feature["dotprod"]()
"""Whether the CPU multiplies fours of bytes with sign into int32 sums (sdot of AArch64)."""


def word_of(activations: DType) -> DType:
    """Gives what words hold on this CPU where activations are rounded to a dtype.

    Args:
        activations: The dtype, float32, bfloat16 or int8.

    Returns:
        The dtype: float32 also for bfloat16 where the CPU does not multiply that.
    """
    if activations == DType.bfloat16 and not HAS_BF16_DOT:
        return DType.float32
    return activations


def per_word(word: DType) -> Int:
    """Gives the elements in one 32-bit word.

    Args:
        word: What a word holds: float32, bfloat16 or int8.

    Returns:
        1, 2 or 4.
    """
    return 4 if word == DType.int8 else 2 if word == DType.bfloat16 else 1


def sum_dtype(word: DType) -> DType:
    """Gives the dtype that products of words are summed in.

    Args:
        word: What a word holds: float32, bfloat16 or int8.

    Returns:
        The dtype: int32 for int8, float32 for the others.
    """
    return DType.int32 if word == DType.int8 else DType.float32


comptime Sums[word: DType] = SIMD[sum_dtype(word), LANES]
"""A register of sums of products, one to a word.

Parameters:
    word: What a word holds.
"""


@inline(.always)
def multiply_add[word: DType, zero_point: Int](acc: Sums[word], a: Words, b: Words) -> Sums[word]:
    """Adds to each lane the product of its two words: `acc + sum_i a_i * b_i` over a word's elements.

    Parameters:
        word: What a word holds: float32, bfloat16 or int8.
        zero_point: What int8 weights have added, to be without sign, or 0: then they have theirs. vpdpbusd takes weights
            without; sums of pairs hold weights without up to 64, or with sign.

    Args:
        acc: Sums so far.
        a: Words of weights; for int8 bytes of 0 to twice the zero point, or with sign.
        b: Words of activations; for int8 bytes of -127 to 127.

    Returns:
        The new sums. In bfloat16 the instruction treats subnormal inputs and sums as zero, whatever the mode.
    """
    comptime if word == DType.bfloat16:
        comptime assert HAS_BF16_DOT, "bfloat16 words need vdpbf16ps"
        return rebind[Sums[word]](
            llvm_intrinsic[
                "llvm.x86.avx512bf16.dpbf16ps.512",
                SIMD[DType.float32, 16],
                has_side_effect=False,
            ](
                rebind[SIMD[DType.float32, 16]](acc),
                bitcast[DType.bfloat16, 32](a),
                bitcast[DType.bfloat16, 32](b),
            )
        )
    elif word == DType.int8:
        return rebind[Sums[word]](
            _multiply_bytes[zero_point](
                rebind[_Ints](acc),
                bitcast[DType.int8, 4 * LANES](a),
                bitcast[DType.int8, 4 * LANES](b),
            )
        )
    else:
        return rebind[Sums[word]](
            bitcast[DType.float32, LANES](a).fma(
                bitcast[DType.float32, LANES](b), rebind[Floats](acc)
            )
        )


comptime PairSums = SIMD[DType.int16, 2 * LANES]
"""A register of int16 sums, one to two bytes of a word."""


@inline(.always)
def multiply_add_of_group[
    word: DType, zero_point: Int, at: Int, count: Int
](acc: Sums[word], mut pairs: PairSums, a: Words, b: Words) -> Sums[word]:
    """Adds the products of one of a group's words, as `multiply_add` does each: the sums are right after the last.

    Where bytes are multiplied in pairs, as many words as cannot overflow int16 are summed there first: for MXFP4 four,
    4 * 2 * 24 * 127 = 24384. That is one addition a word instead of two and a multiplication.

    Parameters:
        word: What a word holds.
        zero_point: As `multiply_add` takes it.
        at: Which of the group's words, in order from 0.
        count: Words in the group.

    Args:
        acc: Sums so far.
        pairs: The group's own, of whatever value before its first word.
        a: Words of weights.
        b: Words of activations.

    Returns:
        Sums, to be given with the group's next word.
    """
    comptime run = _run[word, zero_point]()
    comptime if run == 1:
        return multiply_add[word, zero_point](acc, a, b)
    else:
        var products = _multiply_pairs(
            bitcast[DType.int8, 4 * LANES](a), bitcast[DType.int8, 4 * LANES](b)
        )
        comptime if at % run == 0:
            pairs = products
        else:
            pairs += products
        comptime if at % run == run - 1 or at == count - 1:
            return rebind[Sums[word]](_add_pairs(rebind[_Ints](acc), pairs))
        else:
            return acc


def _run[word: DType, zero_point: Int]() -> Int:
    """Words whose products are summed in int16, a power of two."""
    comptime if word != DType.int8 or HAS_INT8_DOT or not HAS_INT8_PAIRS or zero_point == 0:
        return 1
    else:
        return prev_power_of_two(32767 // (2 * 2 * zero_point * 127))


@inline(.always)
def nearest_bf16(bits: Words) -> Words:
    """Rounds float32 to bfloat16, to even of two; a cast is a call for each element where CPUs have no bfloat16.

    Args:
        bits: Of float32.

    Returns:
        Bits of float32, the lower half of them 0.
    """
    var nearest = bits + 0x7FFF + ((bits >> 16) & 1)
    var quiet = bits | 0x0040_0000
    return ((bits & 0x7FFF_FFFF).gt(0x7F80_0000).select(quiet, nearest)) & 0xFFFF_0000


comptime _Ints = SIMD[DType.int32, LANES]
comptime _Bytes = SIMD[DType.int8, 4 * LANES]


@inline(.always)
def _multiply_pairs(a: _Bytes, b: _Bytes) -> PairSums:
    """Gives the sums of two products each; bytes of a are without sign."""
    comptime name = "llvm.x86.avx512.pmaddubs.w.512" if LANES == 16 else "llvm.x86.avx2.pmadd.ub.sw"
    return llvm_intrinsic[name, PairSums, has_side_effect=False](a, b)


@inline(.always)
def _add_pairs(acc: _Ints, pairs: PairSums) -> _Ints:
    comptime name = "llvm.x86.avx512.pmaddw.d.512" if LANES == 16 else "llvm.x86.avx2.pmadd.wd"
    return acc + llvm_intrinsic[name, _Ints, has_side_effect=False](pairs, PairSums(1))


@inline(.always)
def _multiply_bytes[zero_point: Int](acc: _Ints, a: _Bytes, b: _Bytes) -> _Ints:
    comptime wide = LANES == 16
    comptime if HAS_INT8_DOT:
        comptime assert zero_point > 0, "vpdpbusd takes weights without sign"
        comptime name = "llvm.x86.avx512.vpdpbusd.512" if wide else "llvm.x86.avx512.vpdpbusd.256"
        return llvm_intrinsic[name, _Ints, has_side_effect=False](acc, a, b)
    elif HAS_INT8_PAIRS:
        comptime assert zero_point <= 32, "sums of pairs would overflow"
        var left = a
        var right = b
        comptime if zero_point == 0:
            left = abs(a)  # 128 for -128, as a byte without sign
            comptime if wide:
                right = a.lt(0).select(-b, b)
            else:
                right = llvm_intrinsic["llvm.x86.avx2.psign.b", _Bytes, has_side_effect=False](b, a)
        return _add_pairs(acc, _multiply_pairs(left, right))
    elif HAS_SIGNED_DOT:
        comptime assert zero_point < 64, "bytes have signs"
        comptime Half = SIMD[DType.int32, LANES // 2]
        var sums = Array[Half, 2](fill=Half(0))
        comptime for i in range(2):
            sums[i] = llvm_intrinsic[
                "llvm.aarch64.neon.sdot.v4i32.v16i8", Half, has_side_effect=False
            ](
                acc.slice[LANES // 2, offset=i * LANES // 2](),
                a.slice[2 * LANES, offset=2 * i * LANES](),
                b.slice[2 * LANES, offset=2 * i * LANES](),
            )
        return rebind[_Ints](sums[0].join(sums[1]))
    else:
        var sums = acc
        comptime for i in range(4):
            comptime up = Int32(24 - 8 * i)
            var weight = bitcast[DType.int32, LANES](a) << up
            comptime if zero_point == 0:
                weight >>= 24
            else:
                weight = (bitcast[DType.uint32, LANES](weight) >> 24).cast[DType.int32]()
            sums += weight * (bitcast[DType.int32, LANES](b) << up >> 24)
        return sums
