"""Exhaustive: every E2M1 code on both decoders, every E8M0 byte, every product, bit by bit."""

from std.memory import bitcast
from std.testing import TestSuite, assert_equal, assert_true
from std.utils.numerics import isnan

from mxfp4.decode import (
    HAS_BYTE_LOOKUP,
    decode_e2m1_bf16x32,
    decode_e2m1_f32,
    decode_e2m1_f32x8,
    decode_e2m1_f32_portable,
    decode_e2m1_int8,
    decode_e4m3_f32,
    decode_e8m0,
    narrow_exact,
)
from mxfp4.cpu.words import HAS_BF16_DOT


def _value(code: Int) -> Float64:
    """Value of a code, from the table of magnitudes of OCP MX v1.0, section 5.3.3."""
    var magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    return -magnitudes[code & 7] if code & 8 else magnitudes[code & 7]


def _bits(x: Float32) -> UInt32:
    return bitcast[DType.uint32](x)


def test_float32_decoders_give_every_code() raises:
    for code in range(16):
        for garbage in range(0, 1 << 12, 257):
            # Bits above the fourth belong to other codes and must not matter.
            var lane = UInt32(code | garbage << 4)
            var by_table = decode_e2m1_f32(SIMD[DType.uint32, 16](lane))
            var by_bits = decode_e2m1_f32_portable(SIMD[DType.uint32, 8](lane))
            var want = _bits(Float32(_value(code)))
            assert_equal(_bits(by_table[7]), want, String("code ", code))
            assert_equal(_bits(by_bits[7]), want, String("code ", code))


def test_float32_decoder_by_bytes_gives_every_code_of_every_lane() raises:
    comptime if HAS_BYTE_LOOKUP:
        # Nibble v of lane l holds l + v + shift, all different within a lane.
        for shift in range(16):
            var packed = SIMD[DType.uint32, 8](0)
            for lane in range(8):
                for v in range(8):
                    packed[lane] |= UInt32((lane + v + shift) % 16) << UInt32(4 * v)
            comptime for v in range(8):
                var values = decode_e2m1_f32x8[v](packed)
                for lane in range(8):
                    var want = _bits(Float32(_value((lane + v + shift) % 16)))
                    assert_equal(_bits(values[lane]), want, String("nibble ", v, " lane ", lane))


def test_bfloat16_decoder_gives_every_code() raises:
    comptime if HAS_BF16_DOT:
        for code in range(16):
            for garbage in range(0, 1 << 12, 257):
                var words = decode_e2m1_bf16x32[0](
                    SIMD[DType.uint16, 32](UInt16(code | garbage << 4))
                )
                var want = _bits(Float32(_value(code))) >> 16
                assert_equal(words[5], want << 16 | want, String("code ", code))


def test_bfloat16_decoder_keeps_lane_order() raises:
    comptime if HAS_BF16_DOT:
        var codes = SIMD[DType.uint16, 32](0)
        for lane in range(32):
            codes[lane] = UInt16(lane % 16)
        var values = bitcast[DType.bfloat16, 32](decode_e2m1_bf16x32[0](codes))
        for lane in range(32):
            assert_equal(values[lane].cast[DType.float64](), _value(lane % 16))


def test_int8_decoders_give_twice_every_code_plus_twelve() raises:
    for low in range(16):
        for high in range(16):
            # A code in each byte, others above it that must not matter.
            var bytes = UInt32(low | high << 4) | UInt32(high | low << 4) << 8
            var packed = bytes | bytes << 16
            var wide = decode_e2m1_int8(SIMD[DType.uint32, 16](packed))[9]
            var narrow = decode_e2m1_int8(SIMD[DType.uint32, 8](packed))[3]
            var even = UInt32(Int(2 * _value(low)) + 12)
            var odd = UInt32(Int(2 * _value(high)) + 12)
            var want = even | odd << 8
            assert_equal(wide, want | want << 16, String("codes ", low, " ", high))
            assert_equal(narrow, want | want << 16, String("codes ", low, " ", high))


def test_every_e4m3_code() raises:
    for code in range(256):
        var exponent = code >> 3 & 15
        var mantissa = Float64(code & 7)
        var magnitude = mantissa * Float64(2) ** -9
        if exponent > 0:
            magnitude = (8 + mantissa) * Float64(2) ** (exponent - 10)
        # The two NaNs, which no rounding makes, decode as the format without them would have it.
        var want = -magnitude if code & 128 else magnitude
        var got = decode_e4m3_f32(SIMD[DType.uint32, 8](UInt32(code | 0xABC00)))[5]
        assert_equal(_bits(got), _bits(want.cast[DType.float32]()), String("code ", code))


def test_every_scale_byte() raises:
    for s in range(255):
        var got = decode_e8m0(SIMD[DType.uint32, 4](UInt32(s)))[2].cast[DType.float64]()
        var want = Float64(2) ** (s - 127)
        assert_equal(got, want, String("scale ", s))
    assert_true(isnan(decode_e8m0(SIMD[DType.uint32, 4](255))[0]))


def test_every_product_is_exact_or_overflows() raises:
    for s in range(255):
        var scale = decode_e8m0(SIMD[DType.uint32, 1](UInt32(s)))[0]
        for code in range(16):
            var got = decode_e2m1_f32_portable(SIMD[DType.uint32, 1](UInt32(code)))[0] * scale
            # float64 holds every product; casting it to float32 is exact or overflows to infinity.
            var want = (_value(code) * Float64(2) ** (s - 127)).cast[DType.float32]()
            assert_equal(_bits(got), _bits(want), String("code ", code, " scale ", s))
            var narrow = narrow_exact[DType.bfloat16](SIMD[DType.float32, 1](got))[0]
            assert_equal(
                bitcast[DType.uint16](narrow).cast[DType.uint32]() << 16,
                _bits(want),
                String("code ", code, " scale ", s),
            )


def main() raises:
    var suite = TestSuite.discover_tests[__functions_in_module()]()
    comptime if not HAS_BF16_DOT:
        suite.skip[test_bfloat16_decoder_gives_every_code]()
        suite.skip[test_bfloat16_decoder_keeps_lane_order]()
    suite^.run()
