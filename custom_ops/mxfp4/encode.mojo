"""Floats to E2M1 codes and E8M0 scale bytes: one pure function per step, exact for every input.

All of it is integer arithmetic on float32 bits, `s eeeeeeee mmm...`: results do not depend on whether the thread
flushes subnormals (NOTES N15).
"""

from std.memory import bitcast

from .format import (
    BYTES_PER_GROUP,
    E2M1_MAX_EXPONENT,
    E8M0_NAN,
    GROUP_SIZE,
    e2m1_value,
)


@inline(.always)
def widen_bits[
    dtype: DType, width: SIMDLength, //
](values: SIMD[dtype, width]) -> SIMD[DType.uint32, width]:
    """Gives the bits of the float32 that has a value's value: bfloat16 is its upper half.

    Parameters:
        dtype: Of the values, float32 or bfloat16.
        width: Lanes.

    Args:
        values: Any values; subnormals, infinities and NaNs keep their bits.

    Returns:
        Float32 bits.
    """
    comptime if dtype == DType.bfloat16:
        return bitcast[DType.uint16, width](values).cast[DType.uint32]() << 16
    else:
        comptime assert dtype == DType.float32, "only float32 and bfloat16 widen exactly"
        return bitcast[DType.uint32, width](values)


@inline(.always)
def shared_scale[
    max_exponent: Int = E2M1_MAX_EXPONENT
](bits: SIMD[DType.uint32, GROUP_SIZE]) -> UInt32:
    """Gives a group's scale byte: `floor(log2(amax)) - max_exponent`, clamped to E8M0's range, plus its bias.

    A normal float32 with exponent field f has `floor(log2) = f - 127`, and E8M0's bias is 127 too: the byte is f - 2
    for E2M1. Subnormals and zero have f = 0; all that is below f = 2 is clamped to byte 0. The top needs no clamp:
    f = 254 gives 252.

    Parameters:
        max_exponent: Of the elements' format.

    Args:
        bits: Float32 bits of a group.

    Returns:
        The scale byte, 0..252; 0 for a group of zeros; 255 if any element is an infinity or a NaN (NOTES N15).
    """
    # Shifting the sign out leaves magnitudes, whose bits are ordered as their values are.
    var exponent = (bits << 1).reduce_max() >> 24
    if exponent == 255:
        return E8M0_NAN
    return max(exponent, UInt32(max_exponent)) - UInt32(max_exponent)


@inline(.always)
def encode_e2m1[
    width: SIMDLength, //
](bits: SIMD[DType.uint32, width], scales: SIMD[DType.uint32, width]) -> SIMD[DType.uint32, width]:
    """Rounds `x / 2^(scale - 127)` to the nearest E2M1 code: ties to the even code, beyond 6 saturates to 6.

    With exponent e (1 for subnormals) and 24-bit significand m, x is m * 2^(e - 150), so the quotient in fixed point
    with 26 fraction bits is `m << (e - scale + 3)`. Where that shift is negative the quotient is below 1/4, the first
    midpoint, and so is m itself; where it is above 6 the quotient is 8 or more, and so is m << 6: the clamped shift
    loses nothing. The code is the number of midpoints between neighbouring magnitudes that the quotient has passed.

    Parameters:
        width: Lanes.

    Args:
        bits: Float32 bits of x; infinities and NaNs saturate, as E2M1 has neither.
        scales: The scale byte of each lane.

    Returns:
        Codes `s e1 e0 m`, 0..15. The sign survives rounding to zero. Scale 255 gives code 0, whatever x is.
    """
    comptime Bits = SIMD[DType.uint32, width]
    var exponent = (bits << 1) >> 24
    var implicit_bit = exponent.eq(0).select(Bits(0), Bits(0x0080_0000))
    var significand = (bits & 0x007F_FFFF) | implicit_bit
    var shift = max(exponent, 1).cast[DType.int32]() - scales.cast[DType.int32]() + 3
    var quotient = significand << shift.clamp(0, 6).cast[DType.uint32]()
    var codes = (bits >> 31) << 3
    comptime for code in range(7):
        # In quarters the midpoints are whole. An odd code gives way on the midpoint itself, an even one after it.
        comptime midpoint = UInt32(2 * (e2m1_value(code) + e2m1_value(code + 1))) << 24
        codes += quotient.gt(midpoint - UInt32(code % 2)).cast[DType.uint32]()
    return scales.eq(E8M0_NAN).select(Bits(0), codes)


@inline(.always)
def pack_e2m1(codes: SIMD[DType.uint32, GROUP_SIZE]) -> SIMD[DType.uint8, BYTES_PER_GROUP]:
    """Packs a group's codes two to a byte, the earlier element in the low nibble.

    Args:
        codes: Codes 0..15.

    Returns:
        A group's bytes.
    """
    var even_odd = codes.deinterleave()
    return (even_odd[0] | even_odd[1] << 4).cast[DType.uint8]()
