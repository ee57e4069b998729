"""Powers of two against float64's."""

from std.math import exp2, isnan
from std.testing import TestSuite, assert_equal, assert_true
from std.utils.numerics import nan, neg_inf

from mxfp4.cpu.exp2 import exp2_negative
from mxfp4.cpu.words import LANES, Floats


def test_every_thousandth_down_to_subnormals() raises:
    var worst: Float64 = 0
    for i in range(0, 126_000, LANES):
        var x = Floats(0)
        for lane in range(LANES):
            x[lane] = Float32(i + lane) / -1000
        var want = exp2(x.cast[DType.float64]())
        var error = abs(exp2_negative(x).cast[DType.float64]() - want) / want
        worst = max(worst, error.reduce_max())
    assert_true(worst < 2e-7, String(worst))


def test_whole_powers_are_exact() raises:
    for n in range(127):
        assert_equal(exp2_negative(Float32(-n)), Float32(2) ** -n)


def test_what_would_be_subnormal_is_zero() raises:
    for x in [Float32(-126.001), -127, -150, -1e30, neg_inf[DType.float32]()]:
        assert_equal(exp2_negative(x), 0)


def test_nan_stays() raises:
    assert_true(isnan(exp2_negative(nan[DType.float32]())))


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
