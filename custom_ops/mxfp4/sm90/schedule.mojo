"""Which tile of outputs comes next: a walk over the experts that have rows."""

from std.math import ceildiv

from ..pointers import ConstPointer
from .config import Sm90Config


@fieldwise_init
struct Work(TrivialRegisterPassable):
    """A tile of outputs."""

    var expert: Int
    """Whose weights; the number of experts where there is no more work."""
    var first_row: Int
    """First row of activations."""
    var end_row: Int
    """End of the expert's rows."""
    var row_block: Int
    """Block of weight rows."""


struct Schedule[config: Sm90Config](TrivialRegisterPassable):
    """Work items in order of expert, rows of activations, weight rows: neighbours share activations, then weights.

    Each warp walks it by itself; items are asked for in ascending order, so the walk passes every expert once.

    Parameters:
        config: How the matmul is cut.
    """

    var offsets: ConstPointer[DType.int32]
    """Expert offsets, [experts + 1]."""
    var experts: Int
    """E."""
    var rows: Int
    """P: no row at or past it is given out, whatever the offsets say."""
    var row_blocks: Int
    """Blocks of weight rows."""
    var expert: Int
    """The expert that the walk stands at."""
    var first_item: Int
    """Its first item."""

    def __init__(out self, offsets: ConstPointer[DType.int32], experts: Int, rows: Int, n: Int):
        """Begins at the first expert.

        Args:
            offsets: Expert offsets, [experts + 1].
            experts: E.
            rows: P.
            n: Weight rows of an expert.
        """
        self.offsets = offsets
        self.experts = experts
        self.rows = rows
        self.row_blocks = Self.config.row_blocks(n)
        self.expert = 0
        self.first_item = 0

    def at(mut self, item: Int) -> Work:
        """Gives a work item.

        Args:
            item: Its number, not below that of an earlier call.

        Returns:
            The item; its expert is the number of experts if there are not so many.
        """
        while self.expert < self.experts:
            var begin = self._offset(self.expert)
            var end = self._offset(self.expert + 1)
            # Offsets that do not ascend give no rows, and none outside of the activations.
            var items = ceildiv(max(0, end - begin), Self.config.tokens) * self.row_blocks
            if item < self.first_item + items:
                var inside = item - self.first_item
                return Work(
                    self.expert,
                    begin + inside // self.row_blocks * Self.config.tokens,
                    end,
                    inside % self.row_blocks,
                )
            self.first_item += items
            self.expert += 1
        return Work(self.experts, 0, 0, 0)

    @inline(.always)
    def _offset(self, expert: Int) -> Int:
        return min(max(0, Int(self.offsets[unsafe_offset=expert])), self.rows)
