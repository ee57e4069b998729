"""Products for few tokens: warp-level `mma`, with weights and activations in registers.

`mma.m16n8k16` has the fragments of `wgmma.m64n8k16`, one warp's 16 rows at a time (`layouts.fragments`), so the packed
words are the same. It needs no descriptors, fences or waits, which saves a fifth of the instructions of a stage of 8
tokens; its lower throughput does not matter where memory bandwidth is the bottleneck.
"""

from std.math import ceildiv

from max.gpu.compute.mma import ld_matrix, mma
from max.gpu.sync import named_barrier, syncwarp

from ..layouts.fragments import LINE_BYTES, swizzle_128b
from ..layouts.sm90_tiles import STEPS
from .config import WARPGROUP, Sm90Config
from .decode import Fragment, decode_scales, decode_word
from .stages import Stages, Turns

comptime _COLUMNS = 8
"""Tokens per instruction."""
comptime _SUMS = 4
"""Registers of D per instruction."""


@inline(.always)
def _multiply_k_tile[
    config: Sm90Config, tokens: Int, k_tile: Int
](
    stages: Stages[config],
    slot: Int32,
    mut sums: SIMD[DType.float32, tokens // 2 * config.row_tiles],
    warp: Int,
    lane: Int,
):
    """Multiplies one k tile (64 k) of all row tiles; the warp has 16 rows of each."""
    var words = Array[SIMD[DType.uint32, STEPS], config.row_tiles](fill={})
    var scales = Array[UInt32, config.row_tiles](fill=0)
    comptime for row_tile in range(config.row_tiles):
        words[row_tile], scales[row_tile] = stages.weights(
            slot, Int32(row_tile), k_tile, warp, lane
        )
    # One instruction loads four matrices of 8 tokens by 8 k; each lane gives the address of one row of one of them.
    var line = swizzle_128b(lane % 8 * LINE_BYTES + lane // 8 * 16)
    comptime for half in range(2):
        var a = Array[Fragment, 2 * config.row_tiles](fill={})
        comptime for row_tile in range(config.row_tiles):
            var factors = decode_scales[half](scales[row_tile])
            comptime for step in range(2):
                a[2 * row_tile + step] = decode_word(words[row_tile][2 * half + step], factors)
        # The swizzled address of the upper 32 k differs in one bit.
        var b = stages.b(slot).unsafe_offset(line ^ (64 * half)).unsafe_bitcast[BFloat16]()
        comptime for column in range(tokens // _COLUMNS):
            comptime before = (k_tile * config.tokens + column * _COLUMNS) * LINE_BYTES
            var x = ld_matrix[simd_width=8](b.unsafe_offset(before // 2))
            comptime for row_tile in range(config.row_tiles):
                comptime offset = row_tile * (tokens // 2) + column * _SUMS
                var d = sums.slice[_SUMS, offset=offset]()
                mma(d, a[2 * row_tile], x.slice[4, offset=0](), d)
                mma(d, a[2 * row_tile + 1], x.slice[4, offset=4](), d)
                sums = sums.insert[offset=offset](d)


@inline(.always)
def multiply_mma[
    config: Sm90Config, tokens: Int
](
    stages: Stages[config],
    mut turns: Turns[config.stages, config.sharers()],
    k_tiles: Int32,
    warp: Int,
    lane: Int,
) -> SIMD[DType.float32, tokens // 2 * config.row_tiles]:
    """Multiplies the warpgroup's stages of one work item.

    Parameters:
        config: The tiling configuration.
        tokens: Rows of activations to multiply, from the first on: all, or the half of a narrow tile.

    Args:
        stages: Shared memory.
        turns: The warpgroup's turns, advanced to the next work item.
        k_tiles: Tiles along k.
        warp: The index of the warp in its warpgroup.
        lane: The lane.

    Returns:
        The lane's registers of D, see `layouts.fragments`, row tile by row tile.
    """
    var sums = SIMD[DType.float32, tokens // 2 * config.row_tiles](0)
    while True:
        var here = k_tiles - turns.stage * Int32(config.k_tiles)
        if here <= 0:
            break
        stages.full(turns.slot)[].wait(turns.parity)
        # A full stage is straight-line code, so that loads for the next tile overlap the products of this one.
        if here >= Int32(config.k_tiles):
            comptime for k_tile in range(config.k_tiles):
                _multiply_k_tile[config, tokens, k_tile](stages, turns.slot, sums, warp, lane)
        else:
            comptime for k_tile in range(config.k_tiles - 1):
                if Int32(k_tile) < here:
                    _multiply_k_tile[config, tokens, k_tile](stages, turns.slot, sums, warp, lane)
        syncwarp()  # all lanes have read the slot
        if lane == 0:
            _ = stages.empty(turns.slot)[].arrive()
        turns.advance()
    turns.stage -= ceildiv(k_tiles, Int32(config.k_tiles))
    return sums


@inline(.always)
def add_up[
    config: Sm90Config, tokens: Int
](
    stages: Stages[config],
    sums: SIMD[DType.float32, tokens // 2 * config.row_tiles],
    group: Int32,
    thread: Int,
) -> SIMD[DType.float32, tokens // 2]:
    """Reduces the sums of the two warpgroups: warpgroup i receives the other's sums of row tile i and adds its own.

    Parameters:
        config: The tiling configuration.
        tokens: Rows of activations that were multiplied.

    Args:
        stages: Shared memory.
        sums: From `multiply_mma`.
        group: The warpgroup.
        thread: The thread in its warpgroup.

    Returns:
        In a warpgroup that has a row tile, the total sums of that tile.
    """
    comptime registers = tokens // 2
    var own = SIMD[DType.float32, registers](0)
    var handed = stages.sums().unsafe_offset(thread)
    comptime for row_tile in range(config.row_tiles):
        comptime first = row_tile * registers
        if group == Int32(row_tile):
            own = sums.slice[registers, offset=first]()
        else:
            comptime for i in range(registers):
                handed[unsafe_offset=(first + i) * WARPGROUP] = sums[first + i]
    named_barrier[Int32(2 * WARPGROUP)](1)
    comptime for row_tile in range(config.row_tiles):
        if group == Int32(row_tile):
            comptime for i in range(registers):
                own[i] += handed[unsafe_offset=(row_tile * registers + i) * WARPGROUP]
    named_barrier[Int32(2 * WARPGROUP)](2)  # read before the next item's sums overwrite them
    return own
