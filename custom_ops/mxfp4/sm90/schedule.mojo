"""Which tile of outputs comes next: a walk over the experts that have rows."""

from std.math import ceildiv

from ..pointers import ConstPointer
from .config import Sm90Config

comptime _AT_ONCE = 8
"""Experts whose offsets are loaded at once."""


@fieldwise_init
struct Work(TrivialRegisterPassable):
    """A tile of outputs."""

    var expert: Int32
    """Whose weights; the number of experts where there is no more work."""
    var first_row: Int32
    """First row of activations."""
    var end_row: Int32
    """End of the expert's rows."""
    var row_block: Int32
    """Block of weight rows."""


struct Schedule[config: Sm90Config](TrivialRegisterPassable):
    """Work items in order of expert, rows of activations, weight rows: neighbours share activations, then weights.

    Each warp walks it by itself; items are asked for in ascending order, so the walk passes every expert once. All is
    computed from what every lane has alike, which ptxas then keeps in uniform registers.

    Parameters:
        config: How the matmul is cut.
    """

    var offsets: ConstPointer[DType.int32]
    """Expert offsets, [experts + 1]."""
    var experts: Int32
    """E."""
    var rows: Int32
    """P: no row at or past it is given out, whatever the offsets say."""
    var row_blocks: Int32
    """Blocks of weight rows."""
    var expert: Int32
    """The expert that the walk stands at, -1 to begin with."""
    var first_row: Int32
    """Its first row."""
    var end_row: Int32
    """The end of its rows."""
    var first_item: Int32
    """Its first item."""
    var next_item: Int32
    """The first item of the next expert."""

    def __init__(
        out self, offsets: ConstPointer[DType.int32], experts: Int32, rows: Int32, n: Int32
    ):
        """Begins before the first expert.

        Args:
            offsets: Expert offsets, [experts + 1].
            experts: E.
            rows: P.
            n: Weight rows of an expert.
        """
        self.offsets = offsets
        self.experts = experts
        self.rows = rows
        self.row_blocks = Int32(Self.config.row_blocks(Int(n)))
        self.expert = -1
        self.first_row = 0
        self.end_row = 0
        self.first_item = 0
        self.next_item = 0

    def at(mut self, item: Int32) -> Work:
        """Gives a work item.

        Args:
            item: Its number, not below that of an earlier call.

        Returns:
            The item; its expert is the number of experts if there are not so many.
        """
        while item >= self.next_item:
            if self.expert + 1 >= self.experts:
                return Work(self.experts, 0, 0, 0)
            # The offsets of several experts are loaded at once: the walk waits for memory, and but once for all of them.
            var offsets = Array[Int32, _AT_ONCE + 1](fill=0)
            comptime for i in range(_AT_ONCE + 1):
                offsets[i] = self._offset(self.expert + 1 + Int32(i))
            comptime for i in range(_AT_ONCE):
                if item >= self.next_item:
                    self._enter_next(offsets[i], offsets[i + 1])
        var inside = UInt32(item - self.first_item)
        var row_tile, row_block = divmod(inside, UInt32(self.row_blocks))
        return Work(
            self.expert,
            self.first_row + Int32(row_tile) * Int32(Self.config.tokens),
            self.end_row,
            Int32(row_block),
        )

    @inline(.always)
    def _enter_next(mut self, first_row: Int32, end_row: Int32):
        self.expert += 1
        self.first_row = first_row
        self.end_row = end_row
        self.first_item = self.next_item
        # Offsets that do not ascend give no rows.
        var rows = max(Int32(0), end_row - first_row)
        self.next_item += ceildiv(rows, Int32(Self.config.tokens)) * self.row_blocks

    @inline(.always)
    def _offset(self, expert: Int32) -> Int32:
        """Gives where an expert's rows begin, inside of the activations; past the last expert, where that one's end.
        """
        var offset = self.offsets[unsafe_offset=Int(min(expert, self.experts))]
        return min(max(Int32(0), offset), self.rows)
