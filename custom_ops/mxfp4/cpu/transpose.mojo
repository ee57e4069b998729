"""A square of registers turned: rows become columns."""

from std.bit import log2_floor

from .words import LANES


@inline(.always)
def transpose_square[dtype: DType, //](mut rows: Array[SIMD[dtype, LANES], LANES]):
    """Exchanges element j of register i with element i of register j.

    Interleaving register i with register i + LANES / 2, log2(LANES) times over, turns rows into columns.

    Parameters:
        dtype: Of the elements.

    Args:
        rows: The square.
    """
    comptime for _ in range(log2_floor(LANES)):
        var before = rows.copy()
        comptime for i in range(LANES // 2):
            var both = before[i].interleave(before[i + LANES // 2])
            rows[2 * i] = both.slice[LANES, offset=0]()
            rows[2 * i + 1] = both.slice[LANES, offset=LANES]()
