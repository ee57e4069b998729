"""Register and shared-memory maps: each element once, and the places that the PTX ISA's figures show."""

from std.testing import TestSuite, assert_equal, assert_true

from mxfp4.layouts.fragments import (
    a_k,
    a_lower,
    b_byte,
    d_column,
    d_lower,
    fragment_row,
    swizzle_128b,
)


def test_a_holds_each_element_once() raises:
    var seen = Array[Int, 64 * 16](fill=0)
    for warp in range(4):
        for lane in range(32):
            for register in range(4):
                for half in range(2):
                    var row = fragment_row(warp, lane, a_lower(register))
                    seen[row * 16 + a_k(lane, register, half)] += 1
    for i in range(64 * 16):
        assert_equal(seen[i], 1, String("row ", i // 16, " k ", i % 16))


def test_a_where_the_figure_shows_it() raises:
    # Figure "WGMMA .m64nNk16 register fragment layout for matrix A": T5 of warp 1 has a0..a7 in rows 17 and 25.
    comptime lane = 5
    assert_equal(fragment_row(1, lane, a_lower(0)), 17)
    assert_equal(a_k(lane, 0, 0), 2)
    assert_equal(a_k(lane, 0, 1), 3)
    assert_equal(fragment_row(1, lane, a_lower(1)), 25)
    assert_equal(a_k(lane, 1, 0), 2)
    assert_equal(fragment_row(1, lane, a_lower(2)), 17)
    assert_equal(a_k(lane, 2, 0), 10)
    assert_equal(fragment_row(1, lane, a_lower(3)), 25)
    assert_equal(a_k(lane, 3, 1), 11)


def test_d_holds_each_element_once() raises:
    comptime columns = 32
    var seen = Array[Int, 64 * columns](fill=0)
    for warp in range(4):
        for lane in range(32):
            for i in range(columns // 2):
                seen[fragment_row(warp, lane, d_lower(i)) * columns + d_column(lane, i)] += 1
    for i in range(64 * columns):
        assert_equal(seen[i], 1, String("row ", i // columns, " column ", i % columns))


def test_d_where_the_figure_shows_it() raises:
    # Figure "WGMMA .m64nNk16 register fragment layout for accumulator matrix D": T6 has d0, d1 in columns 4, 5 of
    # row 1, d2, d3 in those of row 9, d4, d5 in columns 12, 13 of row 1.
    comptime lane = 6
    assert_equal(fragment_row(0, lane, d_lower(1)), 1)
    assert_equal(d_column(lane, 1), 5)
    assert_equal(fragment_row(0, lane, d_lower(2)), 9)
    assert_equal(d_column(lane, 2), 4)
    assert_equal(fragment_row(0, lane, d_lower(4)), 1)
    assert_equal(d_column(lane, 4), 12)


def test_swizzle_worked_address() raises:
    assert_equal(swizzle_128b(3 * 128 + 5 * 16), 480)
    assert_equal(b_byte(11, 20), 1432)


def test_swizzle_is_its_own_inverse_and_stays_in_its_line() raises:
    for byte in range(4096):
        assert_equal(swizzle_128b(swizzle_128b(byte)), byte)
        assert_equal(swizzle_128b(byte) // 128, byte // 128)
        assert_equal(swizzle_128b(byte) % 16, byte % 16)


def test_a_part_of_eight_lines_is_in_eight_different_banks() raises:
    # Eight rows of one 16-byte part: what the tensor core reads at once.
    for part in range(8):
        var seen = Array[Bool, 8](fill=False)
        for line in range(8):
            var place = swizzle_128b(line * 128 + part * 16) % 128 // 16
            assert_true(not seen[place])
            seen[place] = True


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
