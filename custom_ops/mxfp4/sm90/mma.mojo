"""Products with few tokens: a warp's own instruction, weights and activations in registers.

`mma.m16n8k16` has the fragments of `wgmma.m64n8k16`, a warp's 16 rows at a time (`layouts.fragments`), so a tile's words
are the same. It needs no descriptors, no fences and nobody to wait for, a fifth of the instructions of a stage of 8
tokens; its lower rate does not matter where memory is the limit.
"""

from std.math import ceildiv

from max.gpu.compute.mma import ld_matrix, mma
from max.gpu.sync import syncwarp

from ..layouts.fragments import LINE_BYTES, swizzle_128b
from .config import Sm90Config
from .decode import decode_scales, decode_word
from .stages import Stages, Turns

comptime _COLUMNS = 8
"""Tokens of one instruction."""
comptime _SUMS = 4
"""D's registers of one instruction."""


@inline(.always)
def _multiply_tile[
    config: Sm90Config, tokens: Int, k_tile: Int
](
    stages: Stages[config],
    slot: Int32,
    row_tile: Int32,
    mut sums: SIMD[DType.float32, tokens // 2],
    warp: Int,
    lane: Int,
):
    """Multiplies a tile of 64 rows by 64 k, of which the warp has 16 rows."""
    var words, scales = stages.weights(slot, row_tile, k_tile, warp, lane)
    # One instruction loads four matrices of 8 tokens by 8 k; each lane says where one line of one lies.
    var line = swizzle_128b(lane % 8 * LINE_BYTES + lane // 8 * 16)
    comptime for half in range(2):
        var factors = decode_scales[half](scales)
        var first = decode_word(words[2 * half], factors)
        var second = decode_word(words[2 * half + 1], factors)
        # The swizzle of the upper 32 k differs in one bit.
        var b = stages.b(slot).unsafe_offset(line ^ (64 * half)).unsafe_bitcast[BFloat16]()
        comptime for i in range(tokens // _COLUMNS):
            comptime before = (k_tile * config.tokens + i * _COLUMNS) * LINE_BYTES
            var x = ld_matrix[simd_width=8](b.unsafe_offset(before // 2))
            var d = sums.slice[_SUMS, offset=_SUMS * i]()
            mma(d, first, x.slice[4, offset=0](), d)
            mma(d, second, x.slice[4, offset=4](), d)
            sums = sums.insert[offset=_SUMS * i](d)


@inline(.always)
def multiply_mma[
    config: Sm90Config, tokens: Int
](
    stages: Stages[config],
    mut turns: Turns[config.stages, config.sharers()],
    k_tiles: Int32,
    row_tile: Int32,
    warp: Int,
    lane: Int,
) -> SIMD[DType.float32, tokens // 2]:
    """Multiplies the stages of one work item whose turn it is.

    Parameters:
        config: How the matmul is cut.
        tokens: Rows of activations that are multiplied, from the first on: all, or the half of a narrow tile.

    Args:
        stages: Shared memory.
        turns: The stages, left at the next work item's.
        k_tiles: Tiles along k.
        row_tile: The row tile of the block.
        warp: The warp in its warpgroup.
        lane: The lane.

    Returns:
        D's registers, as `layouts.fragments` has them.
    """
    var sums = SIMD[DType.float32, tokens // 2](0)
    while True:
        var here = k_tiles - turns.stage * Int32(config.k_tiles)
        if here <= 0:
            break
        stages.full(turns.slot)[].wait(turns.parity)
        # A whole stage is one run without branches: what is loaded for the next tile hides behind this one's products.
        if here >= Int32(config.k_tiles):
            comptime for k_tile in range(config.k_tiles):
                _multiply_tile[config, tokens, k_tile](
                    stages, turns.slot, row_tile, sums, warp, lane
                )
        else:
            comptime for k_tile in range(config.k_tiles - 1):
                if Int32(k_tile) < here:
                    _multiply_tile[config, tokens, k_tile](
                        stages, turns.slot, row_tile, sums, warp, lane
                    )
        syncwarp()  # all lanes have read
        if lane == 0:
            _ = stages.empty(turns.slot)[].arrive()
        turns.advance()
    turns.stage -= ceildiv(k_tiles, Int32(config.k_tiles))
    return sums
