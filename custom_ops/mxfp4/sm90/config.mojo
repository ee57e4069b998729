"""How a grouped matmul is cut for Hopper: a pure function of its sizes."""

from std.math import ceildiv, gcd

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
    """A block's share of the work: warpgroups multiply, and the warps behind them load."""

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
    """Threads that load a stage together, whole warps."""
    var loaders: Int
    """Those that take turns to load."""
    var blocks: Int
    """Blocks to a multiprocessor."""

    def loaded_by(self, *, threads: Int, loaders: Int) -> Self:
        """Gives the same with other threads to load.

        Args:
            threads: Those that load a stage together.
            loaders: Those that take turns.

        Returns:
            The configuration.
        """
        var other = self
        other.loading_threads = threads
        other.loaders = loaders
        return other

    def threads(self) -> Int:
        """Gives the threads of a block.

        Returns:
            Threads, those that load included.
        """
        return WARPGROUP * self.warpgroups + self.loading_threads * self.loaders

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

        Where a warpgroup that loads gives some up, no more than a block has in all: `setmaxnreg` would wait for them for ever.

        Returns:
            Registers, a multiple of 8.
        """
        if not self.moves_registers():
            return self.launch_registers()
        var of_block = self.launch_registers() * (self.warpgroups + 1)
        return max(
            self.launch_registers(), (of_block - PRODUCER_REGISTERS) // self.warpgroups // 8 * 8
        )

    def moves_registers(self) -> Bool:
        """Tells whether loading threads give registers to the others.

        Returns:
            Whether they do: where they are a warpgroup, which alone can, and what they give is of use.
        """
        var whole = self.loading_threads * self.loaders == WARPGROUP
        return whole and not (self.split_k and self.row_tiles == 1)

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


def check_config[config: Sm90Config]():
    """Refuses to compile what would not fit a multiprocessor, or would wait for ever.

    Parameters:
        config: How a matmul is cut.
    """
    # Each block's shared memory costs another KiB of the multiprocessor's.
    comptime fits = config.blocks * (config.shared_bytes() + 1024) <= SHARED_BYTES + 1024
    comptime assert fits, "the stages of all blocks must fit shared memory"
    comptime assert config.b_bytes() % 1024 == 0, "a stage must be whole swizzled tiles"
    # A wait tells rounds apart by parity, so nobody may ask for a round while the one before the last is not over. Who
    # multiplies has been through the slot's last round itself; who loads has waited for a later stage of the same warpgroup.
    comptime assert config.stages % config.sharers() == 0, "a slot must stay with one warpgroup"
    comptime turns = config.loaders * config.sharers() // gcd(config.loaders, config.sharers())
    comptime assert (
        turns <= config.stages
    ), "loading warps must come back to a warpgroup within a round"
    comptime shared_out = config.row_tiles == config.warpgroups
    comptime assert config.split_k or shared_out, "each warpgroup must have a row tile"
    comptime two = config.warpgroups == 2 and config.row_tiles <= 2
    comptime assert two or not config.split_k, "two warpgroups split k, and finish a row tile each"
    # Where products are a warpgroup's, a slot is given back when the next stage's have begun.
    comptime assert config.split_k or config.stages >= 2, "a warpgroup must have two slots"
    comptime of_block = config.launch_registers() * (config.warpgroups + 1)
    comptime moved = config.consumer_registers() * config.warpgroups + PRODUCER_REGISTERS
    comptime enough = not config.moves_registers() or moved <= of_block
    comptime assert enough, "registers that a block does not have are waited for, for ever"


comptime DECODE_8 = Sm90Config(
    tokens=8,
    row_tiles=1,
    warpgroups=2,
    split_k=True,
    k_tiles=5,
    stages=4,
    loading_threads=32,
    loaders=4,
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
    loaders=2,
    blocks=2,
)
"""Up to twelve rows to an expert."""

comptime MLP_8 = DECODE_8.loaded_by(threads=32, loaders=2)
"""Both matmuls in one kernel, where `DECODE_8` is chosen: fewer threads load, as what both need takes registers."""

comptime MLP_16 = DECODE_16.loaded_by(threads=32, loaders=2)
"""Where `DECODE_16` is."""

comptime MIDDLE_64 = Sm90Config(
    tokens=64,
    row_tiles=4,
    warpgroups=4,
    split_k=False,
    k_tiles=3,
    stages=4,
    loading_threads=128,
    loaders=1,
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
    loaders=1,
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
