"""The producer side: fills the stages of a work item, weights by bulk copies, activations gathered row by row."""

from std.math import ceildiv

from max.gpu.sync import syncwarp

from ..activations import Activations
from ..layouts.fragments import LINE_BYTES, swizzle_128b
from ..layouts.sm90_tiles import TILE_BYTES, TILE_K, Sm90Tiles
from ..pointers import ConstPointer
from .config import Sm90Config
from .ptx import arrive_behind_copies, copy_16_bytes, copy_bulk
from .schedule import Work
from .stages import Stages, Turns

comptime _COPY_ELEMENTS = 8
"""Elements per copy of a thread: 16 bytes."""
comptime _CHUNKS = TILE_K // _COPY_ELEMENTS
"""Copies per line of 64 k."""


@fieldwise_init
struct Rows[config: Sm90Config](TrivialRegisterPassable):
    """The weight rows of a work item, as tiles.

    Parameters:
        config: The tiling configuration.
    """

    var first: ConstPointer[DType.uint8]
    """The first tile."""
    var last: Int32
    """The item's last row tile that exists in the expert, counted from the first. It is loaded again in place of those
    past it, whose products are computed but not stored."""
    var k_tiles: Int32
    """Tiles along k."""

    def __init__(out self, weights: ConstPointer[DType.uint8], tiles: Sm90Tiles, work: Work):
        """Locates the tiles.

        Args:
            weights: The packed weights.
            tiles: The sizes of the weights.
            work: The item.
        """
        var row_tile = work.row_tile[Self.config](0)
        self.first = weights.unsafe_offset(tiles.tile_byte(Int(work.expert), Int(row_tile), 0))
        self.last = Int32(tiles.row_tiles()) - 1 - row_tile
        self.k_tiles = Int32(tiles.k_tiles())

    @inline(.always)
    def stages(self) -> Int32:
        """Returns the number of stages of the item.

        Returns:
            Stages, the last of which may have fewer k tiles.
        """
        return ceildiv(self.k_tiles, Int32(Self.config.k_tiles))

    @inline(.always)
    def load(self, stages: Stages[Self.config], slot: Int32, stage: Int32):
        """Starts loading a stage's weights, and tells the full barrier how many bytes to expect.

        Args:
            stages: Shared memory.
            slot: The slot to fill.
            stage: The stage of the item.
        """
        var k_tile = stage * Int32(Self.config.k_tiles)
        var here = min(Int32(Self.config.k_tiles), self.k_tiles - k_tile)
        var full = stages.full(slot)
        full[].expect_bytes(here * Int32(Self.config.row_tiles * TILE_BYTES))
        comptime for i in range(Self.config.row_tiles):
            copy_bulk(
                stages.a(slot, Int32(i), 0),
                self.first.unsafe_offset(
                    Int((min(Int32(i), self.last) * self.k_tiles + k_tile) * TILE_BYTES)
                ),
                Int(here * TILE_BYTES),
                full,
            )


@inline(.always)
def load_ahead[
    config: Sm90Config, first: Bool
](
    stages: Stages[config],
    var turns: Turns[config.stages, config.loaders],
    rows: Rows[config],
) -> Int32:
    """Starts loading a work item's weights, a round of the loader's slots: weights need not wait for activations or the
    row order.

    Parameters:
        config: The tiling configuration.
        first: Whether it can only be the block's first item, when all slots are empty: without the wait for them wide
            tiles' kernels get by with their registers.

    Args:
        stages: Shared memory.
        turns: The loader's turns.
        rows: The item's weights.

    Returns:
        The loader's first stage that has not been started.
    """
    while turns.stage < min(Int32(config.stages), rows.stages()):
        comptime if not first:
            stages.empty(turns.slot)[].wait(turns.parity ^ 1)
        rows.load(stages, turns.slot, turns.stage)
        turns.advance()
    return turns.stage


@inline(.always)
def load[
    config: Sm90Config
](
    stages: Stages[config],
    mut turns: Turns[config.stages, config.loaders],
    work: Work,
    activations: Activations,
    rows: Rows[config],
    begun: Int32,
    thread: Int32,
):
    """Loads the loader's stages of one work item.

    Parameters:
        config: The tiling configuration.

    Args:
        stages: Shared memory.
        turns: The loader's turns, advanced to the next work item.
        work: The item.
        activations: The activations.
        rows: The item's weights.
        begun: The first stage whose weights are not being loaded already.
        thread: The thread within the loader.
    """
    # Each thread copies the same chunk of k for several lines; a line is one row of one k tile.
    comptime lines_at_once = config.loading_threads // _CHUNKS
    comptime lines = config.tokens // lines_at_once
    comptime assert lines * lines_at_once == config.tokens, "a k tile's lines must be whole rounds"
    var chunk = thread % _CHUNKS
    var first_line = thread // _CHUNKS
    var row_chunks = Int32(activations.k // _COPY_ELEMENTS)
    # In chunks, so that 32 bits suffice: registers are scarce here. Negative for missing rows, and so for every k.
    var sources = Array[Int32, lines](fill=Int32.MIN)
    comptime for i in range(lines):
        var place = work.first_row + first_line + Int32(i * lines_at_once)
        # Unsigned, as invalid offsets may make more items than 32 bits can count.
        var within = UInt32(place) < UInt32(work.end_row)
        var token = activations.row(Int(place)) if within else -1
        if token >= 0:
            sources[i] = Int32(token) * row_chunks + chunk
    var narrow = work.rows() <= Int32(config.narrow_tokens())
    # Lines eight apart have the same swizzle.
    comptime alike = max(1, 8 // lines_at_once)
    var targets = Array[Int32, alike](fill=0)
    comptime for i in range(alike):
        var line = first_line + Int32(i * lines_at_once)
        targets[i] = Int32(swizzle_128b(Int(line * LINE_BYTES + chunk * 16)))
    while turns.stage < rows.stages():
        stages.empty(turns.slot)[].wait(turns.parity ^ 1)
        if thread == 0 and turns.stage >= begun:
            rows.load(stages, turns.slot, turns.stage)
        syncwarp()  # nothing else guarantees that thread 0 has reconverged with its warp before the copies
        var b = stages.b(turns.slot)
        var k_chunk = turns.stage * Int32(config.k_tiles * _CHUNKS)
        var left = row_chunks - chunk - k_chunk
        comptime for i in range(lines):
            # The products of a narrow tile read no lines beyond its width.
            comptime if i * lines_at_once >= config.narrow_tokens():
                if narrow:
                    break
            comptime line = i // alike * alike * lines_at_once
            var target = b.unsafe_offset(Int(targets[i % alike]) + line * LINE_BYTES)
            var at = sources[i] + k_chunk
            var source = activations.x.unsafe_offset(Int(at) * _COPY_ELEMENTS)
            comptime for tile in range(config.k_tiles):
                copy_16_bytes(
                    target.unsafe_offset(tile * config.tokens * LINE_BYTES),
                    source.unsafe_offset(tile * TILE_K),
                    at >= 0 and left > Int32(tile * _CHUNKS),
                )
        arrive_behind_copies(stages.full(turns.slot))
        turns.advance()
    turns.stage -= rows.stages()
