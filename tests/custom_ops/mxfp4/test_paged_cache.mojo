"""Addresses in MAX's paged KV cache."""

from std.testing import TestSuite, assert_equal

from mxfp4.paged_cache import PagedCache


def _cache(table: List[UInt32], width: Int, page_stride: Int) -> PagedCache[DType.float32]:
    """Two layers, of which the second; pages of 128 positions of two heads of 64."""
    var floats = List[Float32](length=1, fill=0)
    return PagedCache(
        floats.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin](),
        page_stride,
        table.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin](),
        width,
        2,
        1,
        128,
        2,
        64,
    )


def test_worked_address() raises:
    var table: List[UInt32] = [5, 3]
    assert_equal(_cache(table, 2, 65536).offset(0, 130, True, 1), 246080)
    _ = table^


def test_pages_may_lie_further_apart_than_they_are_long() raises:
    var table: List[UInt32] = [5, 3]
    assert_equal(_cache(table, 2, 70000).offset(0, 130, True, 1), 246080 + 3 * (70000 - 65536))
    _ = table^


def test_each_sequence_has_its_own_pages() raises:
    var table: List[UInt32] = [5, 3, 7, 2]
    var cache = _cache(table, 2, 65536)
    assert_equal(cache.offset(1, 0, False, 0), 7 * 65536 + 128 * 128)
    assert_equal(cache.offset(1, 128, False, 0), 2 * 65536 + 128 * 128)
    _ = table^


def test_positions_of_a_page_are_a_row_stride_apart() raises:
    var table: List[UInt32] = [1]
    var cache = _cache(table, 1, 65536)
    assert_equal(cache.row_stride(), 128)
    for position in range(127):
        assert_equal(
            cache.offset(0, position + 1, False, 1) - cache.offset(0, position, False, 1), 128
        )
    _ = table^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
