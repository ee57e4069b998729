"""Decoding in registers, on the CPU: every code in every place with every scale that the layout takes."""

from std.memory import bitcast
from std.testing import TestSuite, assert_equal

from mxfp4.cpu.words import HAS_BF16_DOT
from mxfp4.format import e2m1_value
from mxfp4.layouts.sm90_tiles import (
    MAX_SCALE,
    SCALE_OFFSET,
    gather_scales,
    gather_word,
    spread_code,
)
from mxfp4.sm90.decode import Pair, decode_scales, decode_word


def _word(register: Int, half: Int, code: Int) -> UInt32:
    """Gives a word with a code in one place and others, different, everywhere else."""
    var registers = SIMD[DType.uint32, 4](0)
    for r in range(4):
        for h in range(2):
            var here = code if r == register and h == half else (7 * code + 3 * r + h) & 15
            registers[r] |= spread_code(UInt32(here)) << UInt32(16 * h)
    return gather_word(registers)


def _bits(code: Int, s: Int) -> UInt16:
    """Gives the bfloat16 bits of a code times 2^(s - 127), subnormals included, by integers alone.
    """
    var sign = UInt16((code >> 3) << 15)
    var magnitude = code & 7
    if magnitude == 0:
        return sign
    # 0.5 is 2^-1; the others are 2^(e - 1) * (1 + m / 2)
    var exponent = s - 1 if magnitude == 1 else s + (magnitude >> 1) - 1
    var mantissa = 0 if magnitude == 1 else (magnitude & 1) * 64
    if exponent >= 1:
        return sign | UInt16((exponent << 7) | mantissa)
    return sign | UInt16((128 + mantissa) >> (1 - exponent))


def test_the_bits_are_those_of_the_format() raises:
    for code in range(16):
        for s in range(100, 129):
            var value = bitcast[DType.bfloat16](_bits(code, s)).cast[DType.float32]()
            assert_equal(value, e2m1_value(code) * Float32(2) ** (s - 127))


def test_every_code_in_every_place_with_every_scale() raises:
    # AVX-512 BF16 flushes subnormal results, which the GPU keeps: they are 0.5, 1 and 1.5 at s = 0, 0.5 at s = 1.
    comptime first_scale = 2 if HAS_BF16_DOT else 0
    for s in range(first_scale, MAX_SCALE + 1):
        var other = (s * 37) % (MAX_SCALE + 1)
        for place in range(4):
            var group = place // 2
            var lower = place % 2
            var groups = SIMD[DType.uint32, 2](0)
            for i in range(4):
                var here = s if i == place else other
                groups[i // 2] |= UInt32(here + SCALE_OFFSET) << UInt32(16 * (i % 2) + 7)
            var word = gather_scales(groups[0], groups[1])
            var factors = decode_scales[0](word) if group == 0 else decode_scales[1](word)
            assert_equal(bitcast[DType.uint16](factors[lower]), UInt16((s + 126) << 7))
            assert_equal(bitcast[DType.uint16](factors[1 - lower]), UInt16((other + 126) << 7))
        var one = BFloat16(1) * BFloat16(2) ** 126
        var factor = bitcast[DType.bfloat16](UInt16((s + SCALE_OFFSET) << 7))
        for register in range(4):
            for half in range(2):
                for code in range(16):
                    var word = _word(register, half, code)
                    var factors = Pair(factor, one) if register % 2 == 0 else Pair(one, factor)
                    var got = decode_word(word, factors)[2 * register + half]
                    assert_equal(
                        bitcast[DType.uint16](got),
                        _bits(code, s),
                        String("s ", s, " register ", register, " half ", half, " code ", code),
                    )


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
