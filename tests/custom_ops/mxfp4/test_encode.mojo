"""Every E2M1 code, tie and saturation under every scale byte, every exponent in every lane, bit by bit."""

from std.memory import bitcast
from std.testing import TestSuite, assert_equal

from mxfp4.encode import encode_e2m1, pack_e2m1, shared_scale, widen_bits

comptime _INFINITY = UInt32(0x7F80_0000)
comptime _SIGN = UInt32(0x8000_0000)
comptime Group = SIMD[DType.uint32, 32]


def _magnitude(code: Int) -> Float64:
    """Magnitudes of OCP MX v1.0, section 5.3.3."""
    return [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][code & 7]


def _scaled(magnitude: Float64, scale: Int) -> UInt32:
    """Bits of magnitude * 2^(scale - 127); infinity where float32 does not hold it."""
    return bitcast[DType.uint32]((magnitude * Float64(2) ** (scale - 127)).cast[DType.float32]())


def _encode(bits: UInt32, scale: Int) -> Int:
    return Int(encode_e2m1(SIMD[DType.uint32, 8](bits), SIMD[DType.uint32, 8](UInt32(scale)))[5])


def _assert_code(bits: UInt32, scale: Int, want: Int) raises:
    """Checks a magnitude and its negative."""
    var place = String("bits ", bits, " scale ", scale)
    assert_equal(_encode(bits, scale), want, place)
    assert_equal(_encode(bits | _SIGN, scale), want + 8, place)


def test_every_code_under_every_scale_round_trips() raises:
    var beyond_float32 = 0
    for scale in range(255):
        for code in range(8):
            var bits = _scaled(_magnitude(code), scale)
            if bits == _INFINITY:
                beyond_float32 += 1
            else:
                _assert_code(bits, scale, code)
    assert_equal(beyond_float32, 6, "4 and 6 times 2^126; 2, 3, 4 and 6 times 2^127")


def test_ties_go_to_the_even_code_under_every_scale() raises:
    for scale in range(255):
        for code in range(7):
            var midpoint = _scaled((_magnitude(code) + _magnitude(code + 1)) / 2, scale)
            if midpoint != _INFINITY:
                _assert_code(midpoint - 1, scale, code)
                _assert_code(midpoint, scale, code + code % 2)
                _assert_code(midpoint + 1, scale, code + 1)


def test_everything_beyond_6_saturates() raises:
    for scale in range(253):
        var six = _scaled(6, scale)
        # Infinity and NaN too: the caller gives their group scale 255.
        for bits in [six + 1, _scaled(7.999, scale), _INFINITY - 1, _INFINITY + 1]:
            _assert_code(bits, scale, 7)
        for exponent in range(Int(six >> 23) + 1, 256):
            _assert_code(UInt32(exponent << 23), scale, 7)


def test_everything_below_a_quarter_rounds_to_a_zero_of_its_sign() raises:
    for scale in range(255):
        var quarter = _scaled(0.25, scale)
        for bits in [UInt32(0), UInt32(1), quarter // 2, quarter - 1, quarter]:
            _assert_code(bits, scale, 0)
        for exponent in range(Int(quarter >> 23)):
            _assert_code(UInt32(exponent << 23 | 0x7F_FFFF), scale, 0)


def test_random_bits_get_the_nearest_code() raises:
    var state = UInt64(20251125)
    for _ in range(200_000):
        state = state * 6364136223846793005 + 1442695040888963407
        var bits = UInt32(state >> 33)
        # Scales about the element's own, where codes differ.
        var scale = min(max(Int(bits >> 23) + Int((state >> 3) & 7) - 4, 0), 254)
        if bits < _INFINITY:
            var x = bitcast[DType.float32](bits).cast[DType.float64]()
            var quotient = x / Float64(2) ** (scale - 127)
            var nearest = 0
            for code in range(1, 8):
                var closer = abs(quotient - _magnitude(code)) - abs(quotient - _magnitude(nearest))
                if closer < 0 or (closer == 0 and code % 2 == 0):
                    nearest = code
            _assert_code(bits, scale, nearest)


def test_scale_255_gives_code_0() raises:
    for bits in [UInt32(0), _SIGN, UInt32(0x3F80_0000), _INFINITY, _INFINITY | _SIGN, ~UInt32(0)]:
        assert_equal(_encode(bits, 255), 0)


def _floor_log2(x: Float64) -> Int:
    var exponent = -200
    while Float64(2) ** (exponent + 1) <= x:
        exponent += 1
    return exponent


def test_shared_scale_of_every_exponent() raises:
    for field in range(255):
        for mantissa in [0, 1, 0x40_0000, 0x7F_FFFF]:
            var bits = UInt32(field << 23 | mantissa)
            var x = bitcast[DType.float32](bits).cast[DType.float64]()
            var want = max(_floor_log2(x) - 2, -127) + 127
            assert_equal(Int(shared_scale(Group(bits))), want, String("bits ", bits))
            assert_equal(Int(shared_scale(Group(bits | _SIGN))), want, String("bits ", bits))


def test_shared_scale_is_that_of_the_largest_magnitude_in_any_lane() raises:
    for lane in range(32):
        for sign in [UInt32(0), _SIGN]:
            var group = Group(bitcast[DType.uint32](Float32(3.9)))
            group[lane] = bitcast[DType.uint32](Float32(4)) | sign
            assert_equal(shared_scale(group), 127, String("lane ", lane))
            for other in [_INFINITY, _INFINITY + 1, UInt32(0x7FFF_FFFF)]:
                group[lane] = other | sign
                assert_equal(shared_scale(group), 255, String("lane ", lane))


def test_shared_scale_of_zeros_is_0() raises:
    assert_equal(shared_scale(Group(0)), 0)
    assert_equal(shared_scale(Group(_SIGN)), 0)


def test_every_bfloat16_widens_to_its_own_bits() raises:
    for high in range(1 << 16):
        var value = bitcast[DType.bfloat16](SIMD[DType.uint16, 4](UInt16(high)))
        assert_equal(widen_bits(value)[1], UInt32(high) << 16)


def test_float32_keeps_its_bits() raises:
    for bits in [UInt32(1), _SIGN, UInt32(0x3F80_0000), _INFINITY, UInt32(0x7F80_0001), ~UInt32(0)]:
        var value = bitcast[DType.float32](SIMD[DType.uint32, 4](bits))
        assert_equal(widen_bits(value)[2], bits)


def test_earlier_element_lies_in_low_nibble() raises:
    for first in range(16):
        for second in range(16):
            for pair in range(16):
                var codes = Group(0)
                codes[2 * pair] = UInt32(first)
                codes[2 * pair + 1] = UInt32(second)
                var want = SIMD[DType.uint8, 16](0)
                want[pair] = UInt8(first | second << 4)
                assert_equal(pack_e2m1(codes), want)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
