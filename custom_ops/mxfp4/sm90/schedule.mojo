"""Which tile of outputs comes next: a list of the experts that have rows, which each block makes for itself."""

from std.math import ceildiv

from max.gpu.memory import AddressSpace
from max.gpu.primitives.warp import prefix_sum

from ..pointers import ConstPointer
from .config import LIST_ENTRIES, Sm90Config

comptime _LANES = 32
comptime _Entry = SIMD[DType.int32, 4]
"""An expert: the first item behind its own, its number, its first row, the end of its rows."""
comptime SharedList = Pointer[
    mut=True, _Entry, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Entries in the order of experts, then one with all further items and expert -1."""


@fieldwise_init
struct Work(TrivialRegisterPassable):
    """A tile of outputs."""

    var expert: Int32
    """Whose weights; negative where there is no more work."""
    var first_row: Int32
    """First row of activations."""
    var end_row: Int32
    """End of the expert's rows."""
    var row_block: Int32
    """Block of weight rows."""


@fieldwise_init
struct _Offsets(TrivialRegisterPassable):
    """Where experts' rows begin."""

    var offsets: ConstPointer[DType.int32]
    var rows: Int32

    @inline(.always)
    def __getitem__(self, expert: Int32) -> Int32:
        """Gives where an expert's rows begin, inside of 0..P whatever the tensor says."""
        return min(max(Int32(0), self.offsets[unsafe_offset=Int(expert)]), self.rows)


@inline(.always)
def list_experts[
    config: Sm90Config
](
    entries: SharedList,
    offsets: ConstPointer[DType.int32],
    experts: Int32,
    rows: Int32,
    n: Int32,
    lane: Int32,
):
    """Lists the experts that have rows; one warp does it, each lane for its share of the experts.

    Memory is waited for once, where a walk from expert to expert would wait at each step.

    Parameters:
        config: How the matmul is cut.

    Args:
        entries: Room for `LIST_ENTRIES`.
        offsets: Expert offsets, [experts + 1]; where they do not ascend, experts have no rows.
        experts: E, below `LIST_ENTRIES`.
        rows: P: no row at or past it is listed.
        n: Weight rows of an expert.
        lane: The lane.
    """
    var starts = _Offsets(offsets, rows)
    var row_blocks = Int32(config.row_blocks(Int(n)))
    var share = ceildiv(experts, Int32(_LANES))
    var first = min(lane * share, experts)
    var end = min(first + share, experts)
    var listed = Int32(0)
    var tiles = Int32(0)
    var start = starts[first]
    for expert in range(first, end):
        var next = starts[expert + 1]
        listed += Int32(next > start)
        tiles += ceildiv(max(Int32(0), next - start), Int32(config.tokens))
        start = next
    var place = prefix_sum[exclusive=True](listed)
    var item = prefix_sum[exclusive=True](tiles) * row_blocks
    start = starts[first]
    for expert in range(first, end):
        var next = starts[expert + 1]
        if next > start:
            item += ceildiv(next - start, Int32(config.tokens)) * row_blocks
            entries[unsafe_offset=Int(place)] = _Entry(item, expert, start, next)
            place += 1
        start = next
    if lane == _LANES - 1:
        entries[unsafe_offset=Int(place)] = _Entry(Int32.MAX, -1, 0, 0)


struct Schedule[config: Sm90Config](TrivialRegisterPassable):
    """Work items in order of expert, rows of activations, weight rows: neighbours share activations, then weights.

    Items are asked for in ascending order, so each warp goes through the list once.

    Parameters:
        config: How the matmul is cut.
    """

    var next: SharedList
    """The entry behind the one that it stands at."""
    var row_blocks: Int32
    """Blocks of weight rows."""
    var first_item: Int32
    """The first item of the expert that it stands at."""
    var entry: _Entry
    """What is listed of that expert."""

    def __init__(out self, entries: SharedList, n: Int32):
        """Begins before the first expert.

        Args:
            entries: From `list_experts`.
            n: Weight rows of an expert.
        """
        self.next = entries
        self.row_blocks = Int32(Self.config.row_blocks(Int(n)))
        self.first_item = 0
        self.entry = _Entry(0)

    @inline(.always)
    def at(mut self, item: Int32) -> Work:
        """Gives a work item.

        Args:
            item: Its number, not below that of an earlier call.

        Returns:
            The item; its expert is negative if there are not so many.
        """
        while item >= self.entry[0]:
            self.first_item = self.entry[0]
            self.entry = self.next[]
            self.next = self.next.unsafe_offset(1)
        var row_tile, row_block = divmod(UInt32(item - self.first_item), UInt32(self.row_blocks))
        return Work(
            self.entry[1],
            self.entry[2] + Int32(row_tile) * Int32(Self.config.tokens),
            self.entry[3],
            Int32(row_block),
        )
