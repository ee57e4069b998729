"""The walk over experts: every output tile once, in order, and none outside, whatever the offsets say."""

from std.testing import TestSuite, assert_equal, assert_true

from mxfp4.sm90.config import DECODE_8, PREFILL_128, Sm90Config
from mxfp4.sm90.schedule import Schedule


def _walk[config: Sm90Config](offsets: List[Int32], rows: Int, n: Int, grid: Int) raises:
    """Lets every block take its items; each row of an expert must meet each block of weight rows once.
    """
    var experts = len(offsets) - 1
    var source = offsets.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    var row_blocks = config.row_blocks(n)
    var seen = List[Int](length=max(1, rows * row_blocks), fill=0)
    for block in range(grid):
        var schedule = Schedule[config](source, Int32(experts), Int32(rows), Int32(n))
        var item = Int32(block)
        while True:
            var work = schedule.at(item)
            var expert, first, end = Int(work.expert), Int(work.first_row), Int(work.end_row)
            if expert == experts:
                break
            assert_true(0 <= Int(work.row_block) < row_blocks)
            assert_true(0 <= first < end <= rows)
            for row in range(first, min(first + config.tokens, end)):
                assert_true(Int(offsets[expert]) <= row < Int(offsets[expert + 1]))
                seen[row * row_blocks + Int(work.row_block)] += 1
            item += Int32(grid)
    for row in range(rows):
        var owners = 0
        for e in range(experts):
            owners += Int(Int(offsets[e]) <= row < Int(offsets[e + 1]))
        for row_block in range(row_blocks):
            assert_equal(
                seen[row * row_blocks + row_block],
                owners,
                String("row ", row, " block ", row_block),
            )


def test_all_rows_of_all_experts() raises:
    _walk[DECODE_8]([0, 1, 1, 4, 20, 20], 20, 2880, 7)
    _walk[PREFILL_128]([0, 300, 300, 301, 429], 429, 5760, 5)


def test_empty_experts_first_last_and_all() raises:
    _walk[DECODE_8]([0, 0, 0, 9, 9], 9, 128, 3)
    _walk[DECODE_8]([0, 0, 0], 0, 128, 3)


def test_more_experts_than_are_looked_at_at_once() raises:
    var offsets: List[Int32] = [0]
    for e in range(61):
        offsets.append(offsets[e] + Int32(e % 7 if e % 5 == 0 else 0))
    for grid in range(1, 24, 11):
        _walk[DECODE_8](offsets, Int(offsets[61]), 192, grid)


def test_all_rows_on_one_expert() raises:
    _walk[DECODE_8]([0, 0, 64, 64], 64, 192, 4)


def test_offsets_that_descend_give_no_rows() raises:
    _walk[DECODE_8]([0, 9, 3, 16], 16, 128, 3)


def test_offsets_outside_of_the_rows_are_cut() raises:
    var offsets: List[Int32] = [-5, 7, 2000000000]
    var source = offsets.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    var schedule = Schedule[DECODE_8](source, 2, 10, 64)
    var first, second = schedule.at(0), schedule.at(1)
    assert_equal(first.first_row, 0)
    assert_equal(first.end_row, 7)
    assert_equal(second.first_row, 7)
    assert_equal(second.end_row, 10)
    assert_equal(schedule.at(2).expert, 2)
    _ = offsets^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
