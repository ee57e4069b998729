"""Top-k of router logits and the softmax over those k, with a warp for each token and its candidates in registers."""

from std.math import ceildiv, exp
from std.memory import bitcast
from std.sys import is_nvidia_gpu
from std.sys._assembly import inlined_assembly
from std.sys.info import _is_sm_8x_or_newer

from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.primitives import warp

from ..pointers import ConstPointer
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before

comptime WARP = 32
"""Threads per warp, and the maximum experts per token."""

comptime _TOKENS_OF_BLOCK = 4
"""Tokens per block, and warps."""

comptime HELD_CHOICES = 3
"""Kernels that there are: for 1, 4 or 16 experts per lane."""

comptime MAX_EXPERTS = 4 ** (HELD_CHOICES - 1) * WARP
"""512: as many as the last of them takes."""

comptime _NO_KEY = Int32.MIN
"""The key of an expert that does not exist or has been picked."""

comptime _NO_ID = Int32.MAX
"""Above all experts' ids."""


@inline(.always)
def sort_key(logit: Float32) -> Int32:
    """Returns an integer above `_NO_KEY` that orders like the logits: both zeros are equal, and NaN is at one end.

    Args:
        logit: The logit.

    Returns:
        The key.
    """
    var bits = bitcast[DType.int32, 1](logit + 0)  # -0 + 0 is +0
    return max(bits ^ ((bits >> 31) & 0x7FFF_FFFF), _NO_KEY + 1)


@inline(.always)
def _largest(value: Int32) -> Int32:
    """Returns the largest of a warp's values to all of its lanes."""
    comptime if is_nvidia_gpu() and _is_sm_8x_or_newer():
        return inlined_assembly["redux.sync.max.s32 $0, $1, -1;", Int32, constraints="=r,r"](value)
    return warp.lane_group_max[num_lanes=WARP](value)


@inline(.always)
def _smallest(value: Int32) -> Int32:
    """Returns the smallest of a warp's values to all of its lanes."""
    return ~_largest(~value)


@inline(.always)
def route_token[
    held: Int
](logits: ConstPointer[DType.float32], experts: Int, top_k: Int, lane: Int) -> Tuple[
    Int32, Float32
]:
    """Picks a token's experts, largest logit first, ties to the lower id, and computes their weights.

    Run by one warp, each lane with every 32nd expert: k times the warp takes the best of its lanes' best. The order is
    total, so ids are valid and distinct whatever the logits.

    Parameters:
        held: Experts per lane.

    Args:
        logits: [experts].
        experts: E, at least k and at most `held * WARP`.
        top_k: Experts per token, k, at most `WARP`.
        lane: The lane.

    Returns:
        For lane j < k, the expert of rank j and its weight.
    """
    var keys = Array[Int32, held](fill=_NO_KEY)
    comptime for i in range(held):
        var expert = lane + i * WARP
        if expert < experts:
            keys[i] = sort_key(logits[unsafe_offset=expert])
    var picked = Int32(0)
    for j in range(top_k):
        var key = keys[0]
        var id = Int32(lane)
        comptime for i in range(1, held):
            if keys[i] > key:
                key = keys[i]
                id = Int32(lane + i * WARP)
        var largest = _largest(key)
        var best_id = _smallest(id if key == largest else _NO_ID)
        if lane == j:
            picked = best_id
        comptime for i in range(held):
            if Int32(lane + i * WARP) == best_id:
                keys[i] = _NO_KEY
    var logit = logits[unsafe_offset=Int(picked)]
    var weight = exp(logit - warp.shuffle_idx(logit, 0))
    var total = Float32(0)
    for j in range(top_k):
        total += warp.shuffle_idx(weight, UInt32(j))
    return picked, weight / total


def route_kernel[
    held: Int
](
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    tokens: Int32,
    experts: Int32,
    top_k: Int32,
):
    """Routes one token per warp.

    Parameters:
        held: Experts per lane.

    Args:
        ids: [T, k].
        weights: [T, k].
        logits: [T, experts].
        tokens: T.
        experts: E, at least k and at most `held * WARP`.
        top_k: Experts per token, k, at most `WARP`.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    var of_block, lane = divmod(Int(thread_idx.x), WARP)
    var token = Int(block_idx.x) * _TOKENS_OF_BLOCK + of_block
    if token >= Int(tokens):
        return
    var expert, weight = route_token[held](
        logits.unsafe_offset(token * Int(experts)), Int(experts), Int(top_k), lane
    )
    if lane < Int(top_k):
        ids[unsafe_offset=token * Int(top_k) + lane] = expert
        weights[unsafe_offset=token * Int(top_k) + lane] = weight


def check_routing(op: String, experts: Int, top_k: Int) raises:
    """Checks that a warp has room for all experts, and a lane for each of a token's experts.

    Args:
        op: The op's name, for the error.
        experts: E.
        top_k: Experts per token, k.

    Raises:
        If there are more.
    """
    if experts > MAX_EXPERTS:
        raise Error(op, ": on a GPU experts must be at most ", MAX_EXPERTS, ", got ", experts)
    if top_k > WARP:
        raise Error(op, ": on a GPU top_k must be at most ", WARP, ", got ", top_k)


def enqueue_route(
    ctx: DeviceContext,
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    tokens: Int,
    experts: Int,
    top_k: Int,
) raises:
    """Routes tokens on a device.

    Args:
        ctx: The device.
        ids: [tokens, top_k].
        weights: [tokens, top_k].
        logits: [tokens, experts].
        tokens: T.
        experts: E, at least top_k and at most `MAX_EXPERTS`.
        top_k: Experts per token, k, at most `WARP`.

    Raises:
        If the launch fails.
    """
    if tokens == 0:
        return
    comptime for i in range(HELD_CHOICES):
        comptime held = 4**i
        if experts <= held * WARP:
            ctx.enqueue_function[route_kernel[held]](
                ids,
                weights,
                logits,
                Int32(tokens),
                Int32(experts),
                Int32(top_k),
                grid_dim=ceildiv(tokens, _TOKENS_OF_BLOCK),
                block_dim=_TOKENS_OF_BLOCK * WARP,
                attributes=overlap_attributes(ctx),
            )
            return
