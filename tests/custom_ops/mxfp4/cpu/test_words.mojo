"""Products of int8 words, for every pair of bytes, as this CPU multiplies them."""

from std.memory import bitcast
from std.testing import TestSuite, assert_equal

from mxfp4.cpu.byte_rows import ByteRows
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.cpu.words import LANES, PairSums, Sums, Words, multiply_add, multiply_add_of_group


def _check_products[zero_point: Int](low: Int, high: Int) raises:
    """Weights from `low` to `high` beside the largest of their kind, where a sum of pairs would overflow first.
    """
    for weight in range(low, high + 1):
        for x in range(-127, 128):
            for other in [low, high]:
                for x_other in [-127, 127]:
                    var a = _word(weight, other)
                    var b = _word(x, x_other)
                    var acc = Sums[DType.int8](7)
                    var got = multiply_add[DType.int8, zero_point](acc, Words(a), Words(b))
                    var want = 7 + 2 * (weight * x + other * x_other)
                    assert_equal(Int(got[LANES - 1]), want, String(weight, " ", x, " ", other))


def _word(even: Int, odd: Int) -> UInt32:
    var pair = UInt32(even & 0xFF) | UInt32(odd & 0xFF) << 8
    return pair | pair << 16


def test_products_of_weights_as_mxfp4_has_them() raises:
    comptime zero_point = Mxfp4Rows[DType.int8].zero_point
    _check_products[zero_point](0, 2 * zero_point)


def test_products_of_weights_as_int8_has_them() raises:
    comptime zero_point = ByteRows[DType.int8, DType.int8].zero_point
    _check_products[zero_point](zero_point - 128, zero_point + 127)


def _check_group[zero_point: Int, count: Int](low: Int, high: Int) raises:
    """Words of the largest bytes of either sign, where sums of several would overflow first, and others among them.
    """
    for weight in [low, high, (low + high) // 2 + 1]:
        for x in [-127, -1, 0, 127]:
            for other in range(-1, count):  # the word that has other bytes, or none
                var acc = Sums[DType.int8](7)
                var pairs = PairSums(-3)
                var want = 7
                comptime for at in range(count):
                    var weight_at = high if at == other else weight
                    var x_at = 127 if at == other else x
                    want += 4 * weight_at * x_at
                    acc = multiply_add_of_group[DType.int8, zero_point, at, count](
                        acc,
                        pairs,
                        Words(_word(weight_at, weight_at)),
                        Words(_word(x_at, x_at)),
                    )
                assert_equal(Int(acc[LANES - 1]), want, String(weight, " ", x, " ", other))


def test_products_of_a_group() raises:
    comptime mxfp4 = Mxfp4Rows[DType.int8].zero_point
    _check_group[mxfp4, 8](0, 2 * mxfp4)
    _check_group[mxfp4, 7](0, 2 * mxfp4)
    comptime int8 = ByteRows[DType.int8, DType.int8].zero_point
    _check_group[int8, 8](int8 - 128, int8 + 127)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
