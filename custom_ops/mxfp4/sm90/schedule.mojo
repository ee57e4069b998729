"""The tile scheduler: each block lists the experts that have rows, and finds its output tiles in that list."""

from std.math import ceildiv

from max.gpu.memory import AddressSpace
from max.gpu.primitives.warp import prefix_sum, shuffle_idx

from ..pointers import ConstPointer
from .config import Sm90Config

comptime _LANES = 32
comptime _AT_ONCE = 4
"""Experts per lane whose offsets are loaded together: with up to 128 experts, all of them."""
comptime _Entry = SIMD[DType.int32, 4]
"""An expert: its first item (or tile of rows, in a list of those), its index, where its rows begin and end."""
comptime SharedList = Pointer[
    mut=True, _Entry, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Entries in the order of `list_experts`, one with expert -1 for all further items, and one that no item reaches."""


@fieldwise_init
struct Work(TrivialRegisterPassable):
    """An output tile."""

    var expert: Int32
    """The expert."""
    var first_row: Int32
    """First row of activations."""
    var end_row: Int32
    """End of the expert's rows."""
    var row_block: Int32
    """Block of weight rows."""

    @inline(.always)
    def rows(self) -> Int32:
        """Returns the number of rows of activations from the first on.

        Returns:
            The expert's remaining rows, which may be more than a tile has.
        """
        return self.end_row - self.first_row

    @inline(.always)
    def row_tile[config: Sm90Config](self, of_block: Int32) -> Int32:
        """Returns the expert's row tile for one of the block's row tiles.

        Parameters:
            config: The tiling configuration.

        Args:
            of_block: Index among the block's row tiles.

        Returns:
            Index among the expert's row tiles.
        """
        return self.row_block * Int32(config.row_tiles) + of_block


@fieldwise_init
struct _Offsets[waited: Bool](TrivialRegisterPassable):
    """Where experts' rows begin, read after waiting for the preceding kernel or before."""

    var offsets: ConstPointer[DType.int32]
    var rows: Int32

    @inline(.always)
    def __getitem__(self, expert: Int32) -> Int32:
        """Returns where an expert's rows begin, clamped to 0..P.

        Bypasses L1 while the preceding kernel may still run, as no document says what L1 holds then.
        """
        var start = self.offsets.unsafe_load[volatile=not Self.waited, invariant=False](Int(expert))
        return min(max(Int32(0), start), self.rows)

    @inline(.always)
    def several(self, first: Int32, end: Int32) -> Array[Int32, _AT_ONCE + 1]:
        """Returns where rows of several experts and the next one begin, clamped to expert `end`."""
        var starts = Array[Int32, _AT_ONCE + 1](fill=0)
        comptime for i in range(_AT_ONCE + 1):
            starts[i] = self[min(first + Int32(i), end)]
        return starts^


@inline(.always)
def list_experts[
    config: Sm90Config, waited: Bool
](
    entries: SharedList,
    offsets: ConstPointer[DType.int32],
    experts: Int32,
    rows: Int32,
    items_of_tile: Int32,
    lane: Int32,
):
    """Lists the experts that have rows, by one warp, each lane for its share of the experts.

    Where narrow tiles come last, an expert may be listed twice: with its other rows, and after all of those with the
    rows of its narrow tile. With up to 128 experts there is one wait for memory; a serial walk would wait at each step.

    Parameters:
        config: The tiling configuration.
        waited: Whether the preceding kernel has been waited for.

    Args:
        entries: Shared memory of `list_bytes`.
        offsets: Expert offsets, [experts + 1]; experts whose offsets do not ascend have no rows.
        experts: E, up to `MAX_EXPERTS`.
        rows: P; rows from P on are never listed.
        items_of_tile: Items per tile of rows: an expert's blocks of weight rows, or 1 for a list in tiles.
        lane: The lane.
    """
    var starts = _Offsets[waited](offsets, rows)
    var share = ceildiv(experts, Int32(_LANES))
    var first = min(lane * share, experts)
    var end = min(first + share, experts)
    var at = starts.several(first, end)
    var place = Int32(0)
    var item = Int32(0)
    comptime for narrow in range(2 if config.narrow_last() else 1):
        comptime if narrow == 1:
            # After the last lane's other tiles.
            place = shuffle_idx(place, UInt32(_LANES - 1))
            item = shuffle_idx(item, UInt32(_LANES - 1))
        var listed = Int32(0)
        var tiles = Int32(0)
        for expert in range(first, end, _AT_ONCE):
            if share > _AT_ONCE:
                at = starts.several(expert, end)
            comptime for i in range(_AT_ONCE):
                var own = _listed_rows[config, narrow == 1](at[i], at[i + 1])
                listed += Int32(own[1] > own[0])
                tiles += ceildiv(own[1] - own[0], Int32(config.tokens))
        place += prefix_sum[exclusive=True](listed)
        item += prefix_sum[exclusive=True](tiles) * items_of_tile
        for expert in range(first, end, _AT_ONCE):
            if share > _AT_ONCE:
                at = starts.several(expert, end)
            comptime for i in range(_AT_ONCE):
                var own = _listed_rows[config, narrow == 1](at[i], at[i + 1])
                if own[1] > own[0]:
                    entries[unsafe_offset=Int(place)] = _Entry(
                        item, expert + Int32(i), own[0], own[1]
                    )
                    item += ceildiv(own[1] - own[0], Int32(config.tokens)) * items_of_tile
                    place += 1
    if lane == _LANES - 1:
        entries[unsafe_offset=Int(place)] = _Entry(item, -1, 0, 0)
        entries[unsafe_offset=Int(place) + 1] = _Entry(Int32.MAX, -1, 0, 0)


@inline(.always)
def _listed_rows[
    config: Sm90Config, narrow: Bool
](first: Int32, end: Int32) -> SIMD[DType.int32, 2]:
    """Returns the range of an expert's rows in its narrow tile, or outside it: all, unless narrow tiles come last.
    """
    var rows = max(Int32(0), end - first)
    var last = Int32(0)
    comptime if config.narrow_last():
        last = rows % Int32(config.tokens)
        last = last if last <= Int32(config.narrow_tokens()) else 0
    var between = first + rows - last
    comptime if narrow:
        return {between, between + last}
    else:
        return {first, between}


struct Schedule[config: Sm90Config, in_tiles: Bool = False](TrivialRegisterPassable):
    """Work items ordered by list entry, rows of activations, weight rows: neighbours share activations, then weights.

    Items are requested in ascending order, so each warp walks the list once. An item's properties are read from the
    list whenever they are needed: registers are scarcer than time between items.

    Parameters:
        config: The tiling configuration.
        in_tiles: Whether the list counts tiles of rows, so that matmuls with different weight rows share it, not items.
    """

    var entry: SharedList
    """The entry of the last item requested; the first one initially."""
    var row_blocks: UInt32
    """Blocks of weight rows."""

    def __init__(out self, entries: SharedList, n: Int32):
        """Starts at the first expert.

        Args:
            entries: From `list_experts`.
            n: Weight rows of an expert.
        """
        self.entry = entries
        self.row_blocks = UInt32(Self.config.row_blocks(Int(n)))

    @inline(.always)
    def has(mut self, item: Int32) -> Bool:
        """Advances to an item's expert.

        Args:
            item: The item's index, not below that of an earlier call.

        Returns:
            Whether the item exists.
        """
        while self._is_past(item):
            self.entry = self.entry.unsafe_offset(1)
        return self._load()[1] >= 0

    @inline(.always)
    def _is_past(self, item: Int32) -> Bool:
        var next = self.entry.unsafe_offset(1).unsafe_bitcast[Int32]()[]
        comptime if Self.in_tiles:
            # The last entry's tile would overflow the multiplication.
            return self._load()[1] >= 0 and UInt32(item) >= self._first_item(next)
        else:
            return item >= next

    @inline(.always)
    def _first_item(self, listed: Int32) -> UInt32:
        comptime if Self.in_tiles:
            return UInt32(listed) * self.row_blocks
        else:
            return UInt32(listed)

    @inline(.always)
    def items(self) -> Int32:
        """Returns the total number of items.

        Returns:
            Items; valid only after `has` has returned False.
        """
        return Int32(self._first_item(self._load()[0]))

    @inline(.always)
    def tiles_of_expert(self) -> Int32:
        """Returns the number of tiles of rows of the current expert.

        Returns:
            Tiles; where narrow tiles come last, without those.
        """
        var entry = self._load()
        return ceildiv(entry[3] - entry[2], Int32(Self.config.tokens))

    @inline(.always)
    def work(self, item: Int32) -> Work:
        """Returns a work item.

        Args:
            item: Its index, for which `has` has returned True.

        Returns:
            The item.
        """
        var entry = self._load()
        var row_tile, row_block = divmod(UInt32(item) - self._first_item(entry[0]), self.row_blocks)
        return Work(
            entry[1],
            entry[2] + Int32(row_tile) * Int32(Self.config.tokens),
            entry[3],
            Int32(row_block),
        )

    @inline(.always)
    def _load(self) -> _Entry:
        return self.entry.unsafe_bitcast[Int32]().unsafe_load[width=4, alignment=16]()
