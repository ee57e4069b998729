"""Products for many tokens: `wgmma`, with weights in registers and activations in shared memory.

The products of one half of a tile (32 k) run while the next half is decoded.
"""

from std.math import ceildiv
from std.memory import bitcast

from max.gpu.compute.mma import (
    WGMMADescriptor,
    wgmma_async,
    wgmma_commit_group_sync,
    wgmma_fence_aligned,
    wgmma_wait_group_sync,
)
from max.gpu.host.nvidia.tma import TensorMapSwizzle
from max.gpu.memory import fence_async_view_proxy
from max.gpu.primitives.warp import broadcast

from ..layouts.fragments import LINE_BYTES
from ..layouts.sm90_tiles import STEPS
from .config import Sm90Config
from .decode import decode_scales, decode_word
from .ptx import SharedBytes, pin
from .stages import Stages, Turns

comptime _HALF_STEPS = STEPS // 2
"""Steps of 16 k in a scale group."""


@inline(.always)
def _describe(lines: SharedBytes) -> SIMD[DType.uint32, 2]:
    """Builds the tensor core's descriptor of activations, with the address in the low word.

    The broadcast tells the compiler that this word is the same in all lanes: it moves to a uniform register once, and
    the steps of k are added there.
    """
    var described = WGMMADescriptor[DType.bfloat16].create[64, 1, TensorMapSwizzle.SWIZZLE_128B](
        lines.unsafe_bitcast[BFloat16]()
    )
    var words = bitcast[DType.uint32, 2](described.desc)
    words[0] = broadcast(words[0])
    return words


@inline(.always)
def _behind[bytes: Int](described: SIMD[DType.uint32, 2]) -> WGMMADescriptor[DType.bfloat16]:
    """Advances a descriptor: the address is in units of 16 bytes, and stays within 14 bits."""
    var words = described
    words[0] += UInt32(bytes // 16)
    return WGMMADescriptor[DType.bfloat16](bitcast[DType.int64, 1](words))


@inline(.always)
def _multiply_tile[
    config: Sm90Config, tokens: Int, k_tile: Int
](
    stages: Stages[config],
    slot: Int32,
    before: Int32,
    b: SIMD[DType.uint32, 2],
    mut sums: SIMD[DType.float32, tokens // 2],
    row_tile: Int32,
    warp: Int,
    lane: Int,
):
    """Decodes a tile of 64 rows by 64 k and issues its products; in a stage's first tile it also releases the previous
    stage, once that stage's products are complete."""
    var words, scales = stages.weights(slot, row_tile, k_tile, warp, lane)
    comptime for half in range(2):
        # All products but those of the last half are complete, so the registers of the half before it are free.
        wgmma_wait_group_sync[1]()
        comptime if k_tile == 0 and half == 1:
            if before >= 0 and lane == 0:
                _ = stages.empty(before)[].arrive()
        var factors = decode_scales[half](scales)
        var fragments = decode_word(pin(words[2 * half]), factors).join(
            decode_word(pin(words[2 * half + 1]), factors)
        )
        wgmma_fence_aligned()
        comptime for step in range(_HALF_STEPS):
            sums = wgmma_async[
                64,
                tokens,
                16,
                a_type=DType.bfloat16,
                b_type=DType.bfloat16,
            ](
                fragments.slice[8, offset=8 * step](),
                _behind[k_tile * config.tokens * LINE_BYTES + 32 * (_HALF_STEPS * half + step)](b),
                sums,
            )
        wgmma_commit_group_sync()


@inline(.always)
def multiply_wgmma[
    config: Sm90Config, tokens: Int
](
    stages: Stages[config],
    mut turns: Turns[config.stages, config.sharers()],
    k_tiles: Int32,
    row_tile: Int32,
    warp: Int,
    lane: Int,
) -> SIMD[DType.float32, tokens // 2]:
    """Multiplies the stages of one work item.

    Parameters:
        config: The tiling configuration.
        tokens: Rows of activations to multiply, from the first on: all, or the half of a narrow tile.

    Args:
        stages: Shared memory.
        turns: The warpgroup's turns, advanced to the next work item.
        k_tiles: Tiles along k.
        row_tile: The row tile within the block.
        warp: The index of the warp in its warpgroup.
        lane: The lane.

    Returns:
        The lane's registers of D, see `layouts.fragments`.
    """
    var sums = SIMD[DType.float32, tokens // 2](0)
    var before = Int32(-1)  # the slot whose last products may still be in flight
    while True:
        var here = k_tiles - turns.stage * Int32(config.k_tiles)
        if here <= 0:
            break
        stages.full(turns.slot)[].wait(turns.parity)
        fence_async_view_proxy()  # written through the generic proxy, read through the async proxy
        var b = _describe(stages.b(turns.slot))
        # A full stage is straight-line code: branches would move descriptors out of uniform registers.
        if here >= Int32(config.k_tiles):
            comptime for k_tile in range(config.k_tiles):
                _multiply_tile[config, tokens, k_tile](
                    stages, turns.slot, before, b, sums, row_tile, warp, lane
                )
        else:
            comptime for k_tile in range(config.k_tiles - 1):
                if Int32(k_tile) < here:
                    _multiply_tile[config, tokens, k_tile](
                        stages, turns.slot, before, b, sums, row_tile, warp, lane
                    )
        before = turns.slot
        turns.advance()
    turns.stage -= ceildiv(k_tiles, Int32(config.k_tiles))
    wgmma_wait_group_sync[0]()
    if before >= 0 and lane == 0:
        _ = stages.empty(before)[].arrive()
    return sums
