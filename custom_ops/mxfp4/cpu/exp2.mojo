"""Powers of two, as softmax takes them."""

from std.memory import bitcast


@inline(.always)
def exp2_negative[
    width: SIMDLength, //
](x: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    """Computes `2^x = 2^n * 2^r`, n being the nearest integer and 2^r a polynomial.

    Parameters:
        width: Elements.

    Args:
        x: 0 or less.

    Returns:
        2^x to 2e-7 of it; 1 for 0, 0 below -126, where it would be subnormal, and NaN for NaN.
    """
    var n = round(x)
    var r = x - n
    # The smallest greatest relative error over [-1/2, 1/2] that degree 5 can have with 2^0 = 1.
    var power = r.fma(0.001326472731307149, 0.009671512991189957)
    power = r.fma(power, 0.05550733581185341)
    power = r.fma(power, 0.24022242426872253)
    power = r.fma(power, 0.6931470036506653)
    power = r.fma(power, 1)
    var bits = bitcast[DType.int32, width](power) + (n.cast[DType.int32]() << 23)
    return x.lt(-126).select(SIMD[DType.float32, width](0), bitcast[DType.float32, width](bits))
