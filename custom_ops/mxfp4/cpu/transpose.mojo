"""Squares of registers turned: rows become columns."""

from std.bit import log2_floor
from std.utils import IndexList

from .words import LANES, Words


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


def _unpack[part: Int, high: Bool]() -> IndexList[LANES]:
    """In each four lanes of two registers: the first or the second half of both, `part` lanes of one and of the other in turn.
    """
    var mask = IndexList[LANES]()
    comptime for lane in range(LANES):
        var i = lane % 4
        var source = (2 if high else 0) + i // (2 * part) * part + i % part
        mask[lane] = lane // 4 * 4 + source + (LANES if i // part % 2 else 0)
    return mask


@inline(.always)
def transpose_quarters(rows: Array[Words, 4]) -> Array[Words, 4]:
    """Exchanges word 4q + i of register j with word 4q + j of register i, for every q: squares of 4 by 4 lanes.

    Lane 4q + j then has, in registers 0..3, what lanes 4q to 4q + 3 of register j held: 16 bytes that follow one another in memory.

    Args:
        rows: Four registers.

    Returns:
        Four registers.
    """
    var low = Array[Words, 2](fill=Words(0))
    var high = Array[Words, 2](fill=Words(0))
    comptime for i in range(2):
        low[i] = rows[2 * i].shuffle[mask=_unpack[1, False]()](rows[2 * i + 1])
        high[i] = rows[2 * i].shuffle[mask=_unpack[1, True]()](rows[2 * i + 1])
    var turned = Array[Words, 4](fill=Words(0))
    turned[0] = low[0].shuffle[mask=_unpack[2, False]()](low[1])
    turned[1] = low[0].shuffle[mask=_unpack[2, True]()](low[1])
    turned[2] = high[0].shuffle[mask=_unpack[2, False]()](high[1])
    turned[3] = high[0].shuffle[mask=_unpack[2, True]()](high[1])
    return turned^


def quarter_run(lane: Int) -> Int:
    """Gives which 16 bytes of four registers `transpose_quarters` leaves in a lane.

    Worked: with 16 lanes, lane 6 = 4 * 1 + 2 has the second quarter of register 2, run 4 * 2 + 1 = 9.

    Args:
        lane: The lane.

    Returns:
        The run, counted from the first byte of register 0.
    """
    return LANES // 4 * (lane % 4) + lane // 4


def quarter_lane(run: Int) -> Int:
    """Gives the lane that has a run of 16 bytes, the inverse of `quarter_run`.

    Args:
        run: The run.

    Returns:
        The lane.
    """
    return 4 * (run % (LANES // 4)) + run // (LANES // 4)
