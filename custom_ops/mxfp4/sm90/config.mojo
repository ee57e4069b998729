"""Tiling configurations of the grouped matmul for Hopper, chosen by a pure function of its sizes."""

from std.math import ceildiv, gcd

from ..layouts.fragments import LINE_BYTES
from ..layouts.sm90_tiles import TILE_BYTES, TILE_ROWS

comptime SHARED_BYTES = 232_448
"""Maximum shared memory of a block. Source: CUDA programming guide, compute capability 9.0."""

comptime WARPGROUP = 128
"""Threads of a warpgroup."""

comptime SM_REGISTERS = 65_536
"""Registers of a multiprocessor. Source: CUDA programming guide, compute capability 9.0."""

comptime PRODUCER_REGISTERS = 56
"""Registers that a producer thread keeps where producers release the others."""

comptime BARRIER_BYTES = 8
"""Bytes of an mbarrier."""

comptime MAX_EXPERTS = 510
"""Experts that fit in a block's list."""


@fieldwise_init
struct Sm90Config(Equatable, TrivialRegisterPassable):
    """Tiling of a block: consumer warpgroups multiply, the producer warps after them load."""

    var tokens: Int
    """Rows of activations per output tile: 8, 16, 64 or 128."""
    var row_tiles: Int
    """Tiles of 64 weight rows per output tile."""
    var warpgroups: Int
    """Consumer warpgroups."""
    var split_k: Bool
    """Whether the two warpgroups split k: they take stages in turn, each with all row tiles, by the warp-level `mma`;
    used where decoding takes longer than the products. Otherwise each warpgroup multiplies one row tile by `wgmma`."""
    var k_tiles: Int
    """Tiles of 64 k per stage."""
    var stages: Int
    """Pipeline stages: slots of the ring buffer."""
    var loading_threads: Int
    """Threads of a loader, which load a stage together; whole warps."""
    var loaders: Int
    """Loaders, which take stages in turn."""
    var blocks: Int
    """Resident blocks per multiprocessor."""

    def loaded_by(self, *, threads: Int, loaders: Int) -> Self:
        """Returns this configuration with different producers.

        Args:
            threads: Threads of a loader.
            loaders: Loaders, which take stages in turn.

        Returns:
            The configuration.
        """
        var other = self
        other.loading_threads = threads
        other.loaders = loaders
        return other

    def threads(self) -> Int:
        """Returns the threads of a block.

        Returns:
            Threads, including the producers.
        """
        return WARPGROUP * self.warpgroups + self.loading_threads * self.loaders

    def sharers(self) -> Int:
        """Returns the number of warpgroups among which k is split.

        Returns:
            Warpgroups that have the same rows.
        """
        return self.warpgroups if self.split_k else 1

    def b_bytes(self) -> Int:
        """Returns the bytes of activations in a stage.

        Returns:
            Bytes, a multiple of 1024.
        """
        return self.k_tiles * self.tokens * LINE_BYTES

    def a_bytes(self) -> Int:
        """Returns the bytes of weights in a stage.

        Returns:
            Bytes.
        """
        return self.k_tiles * self.row_tiles * TILE_BYTES

    def sums_bytes(self) -> Int:
        """Returns the bytes through which the warpgroups that split k exchange sums.

        Returns:
            Bytes.
        """
        if not self.split_k:
            return 0
        return self.row_tiles * TILE_ROWS * self.tokens * 4

    def list_bytes(self) -> Int:
        """Returns the bytes of the list of experts.

        Returns:
            Bytes: 16 per entry; an entry per expert, or two where narrow tiles come last, and two at the end.
        """
        return 16 * (MAX_EXPERTS * (2 if self.narrow_last() else 1) + 2)

    def shared_bytes(self) -> Int:
        """Returns the shared memory of a block.

        Returns:
            Bytes: stages of activations, stages of weights, the list of experts, two barriers per stage, sums.
        """
        return (
            self.stages * (self.b_bytes() + self.a_bytes() + 2 * BARRIER_BYTES)
            + self.list_bytes()
            + self.sums_bytes()
        )

    def launch_registers(self) -> Int:
        """Returns the registers per thread at launch.

        Returns:
            Registers, a multiple of 8.
        """
        return SM_REGISTERS // (self.threads() * self.blocks) // 8 * 8

    def consumer_registers(self) -> Int:
        """Returns the registers that a consumer thread may use.

        Where producers release some, no more than the block has in all: `setmaxnreg` would wait forever for the rest.

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
        """Returns whether producer threads release registers to the consumers.

        Returns:
            True where they form a whole warpgroup, as `setmaxnreg` requires, and consumers can use the registers.
        """
        var whole = self.loading_threads * self.loaders == WARPGROUP
        return whole and not (self.split_k and self.row_tiles == 1)

    def narrow_tokens(self) -> Int:
        """Returns the rows of activations up to which a tile is multiplied as a narrow one.

        Returns:
            Half of `tokens`, but no fewer than the 8 of one instruction.
        """
        return max(self.tokens // 2, 8)

    def narrow_last(self) -> Bool:
        """Returns whether narrow tiles come after all others, where they balance the load of the blocks.

        Returns:
            True only where the tensor core is the bottleneck: an expert in both parts has its weights read twice.
        """
        return self.tokens > 64

    def row_blocks(self, n: Int) -> Int:
        """Returns the blocks along an expert's weight rows.

        Args:
            n: Weight rows.

        Returns:
            Blocks, the last of which may have fewer rows.
        """
        return ceildiv(n, TILE_ROWS * self.row_tiles)

    def most_items(self, rows: Int, experts: Int, n: Int) -> Int:
        """Returns the maximum number of output tiles over all routings.

        Args:
            rows: Routed rows, P.
            experts: E.
            n: Weight rows.

        Returns:
            Tiles: each expert with rows may have one partial tile.
        """
        return (rows // self.tokens + min(rows, experts)) * self.row_blocks(n)

    def most_items_listed(self, rows: Int, experts: Int, n: Int) -> Int:
        """Returns the maximum number of output tiles over all offsets, even those that no routing produces.

        Args:
            rows: Routed rows, P.
            experts: E.
            n: Weight rows.

        Returns:
            Tiles: each expert may claim all rows.
        """
        return experts * ceildiv(rows, self.tokens) * self.row_blocks(n)


def check_config[config: Sm90Config]():
    """Rejects at compile time what would not fit on a multiprocessor, or would deadlock.

    Parameters:
        config: The tiling configuration.
    """
    comptime producers = config.loading_threads * config.loaders
    comptime assert producers <= WARPGROUP, "all loaders must be in the last warpgroup"
    # Each resident block takes another KiB of the multiprocessor's shared memory.
    comptime fits = config.blocks * (config.shared_bytes() + 1024) <= SHARED_BYTES + 1024
    comptime assert fits, "the stages of all blocks must fit shared memory"
    comptime assert config.b_bytes() % 1024 == 0, "a stage must be whole swizzled tiles"
    # A wait distinguishes rounds only by parity, so no thread may wait for a slot's round before the previous round is
    # complete. A consumer has been through that round itself; a producer has already waited for the same warpgroup to
    # release a stage at least as late.
    comptime assert config.stages % config.sharers() == 0, "a slot must stay with one warpgroup"
    comptime turns = config.loaders * config.sharers() // gcd(config.loaders, config.sharers())
    comptime assert (
        turns <= config.stages
    ), "loading warps must come back to a warpgroup within a round"
    comptime shared_out = config.row_tiles == config.warpgroups
    comptime assert config.split_k or shared_out, "each warpgroup must have a row tile"
    comptime two = config.warpgroups == 2 and config.row_tiles <= 2
    comptime assert two or not config.split_k, "two warpgroups split k, and finish a row tile each"
    # With wgmma a slot is released only after the next stage's products have been issued.
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
"""For up to four rows per expert."""

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
"""For up to twelve rows per expert."""

comptime MLP_8 = DECODE_8.loaded_by(threads=32, loaders=2)
"""For both matmuls in one kernel, where `DECODE_8` is chosen; fewer producers, as that kernel needs more registers."""

comptime MLP_16 = DECODE_16.loaded_by(threads=32, loaders=2)
"""The same where `DECODE_16` is chosen."""

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
"""For up to 64 rows per expert."""

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
"""For more rows per expert."""


def choose_config(rows: Int, experts: Int) -> Sm90Config:
    """Chooses a configuration by the rows per expert if all experts get the same number.

    A tile that is too wide multiplies zeros; one that is too narrow decodes weights again for the next rows. The
    thresholds were measured on an H200 (NOTES F73, F80).

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
