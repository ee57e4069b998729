"""How a grouped matmul is cut for Hopper: a pure function of its sizes."""

from std.math import ceildiv

from ..layouts.fragments import LINE_BYTES
from ..layouts.sm90_tiles import TILE_BYTES, TILE_ROWS

comptime SHARED_BYTES = 232_448
"""Shared memory a block can have. Source: CUDA programming guide, compute capability 9.0."""

comptime WARPGROUP = 128
"""Threads of a warpgroup."""

comptime SM_REGISTERS = 65_536
"""Registers of a multiprocessor. Source: CUDA programming guide, compute capability 9.0."""

comptime PRODUCER_REGISTERS = 56
"""Registers that a loading thread keeps where it gives others up."""

comptime BARRIER_BYTES = 8
"""Bytes of an mbarrier."""

comptime MAX_EXPERTS = 510
"""Experts that a block's list has room for."""


@fieldwise_init
struct Sm90Config(Equatable, TrivialRegisterPassable):
    """A block's share of the work: one warpgroup loads, the others multiply."""

    var tokens: Int
    """Rows of activations in a tile: 8, 16, 64 or 128."""
    var row_tiles: Int
    """Tiles of 64 weight rows in a tile of outputs."""
    var warpgroups: Int
    """Warpgroups that multiply."""
    var split_k: Bool
    """Whether the two warpgroups take turns along k, each with all row tiles, by a warp's own instruction (`mma`): where decoding
    takes longer than products. Otherwise each has a row tile, and multiplies by a warpgroup's instruction (`wgmma`)."""
    var k_tiles: Int
    """Tiles of 64 k in a stage."""
    var stages: Int
    """Stages in flight."""
    var loading_threads: Int
    """Threads that load a stage together, whole warps: the others of the warpgroup have the next stages."""
    var blocks: Int
    """Blocks to a multiprocessor."""

    def threads(self) -> Int:
        """Gives the threads of a block.

        Returns:
            Threads, the loading warpgroup's included.
        """
        return WARPGROUP * (self.warpgroups + 1)

    def loaders(self) -> Int:
        """Gives the parts of the loading warpgroup that take turns.

        Returns:
            How many load a stage each.
        """
        return WARPGROUP // self.loading_threads

    def sharers(self) -> Int:
        """Gives the warpgroups that take turns along k.

        Returns:
            How many have the same rows.
        """
        return self.warpgroups if self.split_k else 1

    def b_bytes(self) -> Int:
        """Gives the bytes of activations in a stage.

        Returns:
            Bytes, a multiple of 1024.
        """
        return self.k_tiles * self.tokens * LINE_BYTES

    def a_bytes(self) -> Int:
        """Gives the bytes of weights in a stage.

        Returns:
            Bytes.
        """
        return self.k_tiles * self.row_tiles * TILE_BYTES

    def sums_bytes(self) -> Int:
        """Gives the bytes in which the warpgroups that split k hand sums to each other.

        Returns:
            Bytes.
        """
        if not self.split_k:
            return 0
        return self.row_tiles * TILE_ROWS * self.tokens * 4

    def list_bytes(self) -> Int:
        """Gives the bytes of the list of experts.

        Returns:
            Bytes: 16 for each expert, twice where narrow tiles come last, and for each of two at the end.
        """
        return 16 * (MAX_EXPERTS * (2 if self.narrow_last() else 1) + 2)

    def shared_bytes(self) -> Int:
        """Gives the shared memory of a block.

        Returns:
            Bytes: stages of activations, stages of weights, the list of experts, sums, two barriers a stage.
        """
        return (
            self.stages * (self.b_bytes() + self.a_bytes() + 2 * BARRIER_BYTES)
            + self.list_bytes()
            + self.sums_bytes()
        )

    def launch_registers(self) -> Int:
        """Gives the registers that each thread of a block begins with.

        Returns:
            Registers, a multiple of 8.
        """
        return SM_REGISTERS // (self.threads() * self.blocks) // 8 * 8

    def consumer_registers(self) -> Int:
        """Gives the registers that a multiplying thread may have.

        Where loading threads give some up, no more than a block has in all: `setmaxnreg` would wait for them for ever.

        Returns:
            Registers, a multiple of 8.
        """
        if self.split_k and self.row_tiles == 1:  # these need no more
            return self.launch_registers()
        var of_block = self.launch_registers() * (self.warpgroups + 1)
        return max(
            self.launch_registers(), (of_block - PRODUCER_REGISTERS) // self.warpgroups // 8 * 8
        )

    def moves_registers(self) -> Bool:
        """Tells whether loading threads give registers to the others.

        Returns:
            Whether they do.
        """
        return self.consumer_registers() > self.launch_registers()

    def narrow_tokens(self) -> Int:
        """Gives the rows of activations up to which a tile is multiplied as a narrow one.

        Returns:
            Half of `tokens`, or all where one instruction has no fewer.
        """
        return max(self.tokens // 2, 8)

    def narrow_last(self) -> Bool:
        """Tells whether narrow tiles come after all others, where they even out what blocks have to do.

        Returns:
            Whether they do: where the tensor core is the limit, as an expert's weights then come from memory twice.
        """
        return self.tokens > 64

    def row_blocks(self, n: Int) -> Int:
        """Gives the blocks along an expert's weight rows.

        Args:
            n: Weight rows.

        Returns:
            Blocks, the last of which may have fewer rows.
        """
        return ceildiv(n, TILE_ROWS * self.row_tiles)

    def most_items(self, rows: Int, experts: Int, n: Int) -> Int:
        """Gives the most tiles of outputs that any routing makes.

        Args:
            rows: Routed rows, P.
            experts: E.
            n: Weight rows.

        Returns:
            Tiles: each expert with rows may have one that is not full.
        """
        return (rows // self.tokens + min(rows, experts)) * self.row_blocks(n)

    def most_items_listed(self, rows: Int, experts: Int, n: Int) -> Int:
        """Gives the most tiles of outputs that any offsets make, such as no routing has.

        Args:
            rows: Routed rows, P.
            experts: E.
            n: Weight rows.

        Returns:
            Tiles: each expert may claim all rows.
        """
        return experts * ceildiv(rows, self.tokens) * self.row_blocks(n)


comptime DECODE_8 = Sm90Config(
    tokens=8,
    row_tiles=1,
    warpgroups=2,
    split_k=True,
    k_tiles=5,
    stages=4,
    loading_threads=32,
    blocks=3,
)
"""Up to four rows to an expert."""

comptime DECODE_16 = Sm90Config(
    tokens=16,
    row_tiles=2,
    warpgroups=2,
    split_k=True,
    k_tiles=2,
    stages=6,
    loading_threads=64,
    blocks=2,
)
"""Up to twelve rows to an expert."""

comptime MIDDLE_64 = Sm90Config(
    tokens=64,
    row_tiles=4,
    warpgroups=4,
    split_k=False,
    k_tiles=3,
    stages=4,
    loading_threads=128,
    blocks=1,
)
"""Up to 64 rows to an expert."""

comptime PREFILL_128 = Sm90Config(
    tokens=128,
    row_tiles=3,
    warpgroups=3,
    split_k=False,
    k_tiles=3,
    stages=3,
    loading_threads=128,
    blocks=1,
)
"""More."""


def choose_config(rows: Int, experts: Int) -> Sm90Config:
    """Chooses by the rows that an expert gets if all get the same.

    A tile too wide multiplies zeros, one too narrow decodes weights again for the next rows. Where one begins to win was
    measured on an H200 (NOTES F73, F80).

    Args:
        rows: Routed rows, P.
        experts: E.

    Returns:
        The configuration.
    """
    var of_expert = ceildiv(rows, experts)
    if of_expert <= 4:
        return DECODE_8
    if of_expert <= 12:
        return DECODE_16
    if of_expert <= 64:
        return MIDDLE_64
    return PREFILL_128
