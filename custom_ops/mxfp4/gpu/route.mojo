"""Top-k of router logits and the softmax over those k: a block for each token."""

from std.math import exp
from std.memory import bitcast

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..pointers import ConstPointer

comptime ROUTE_THREADS = 128
"""Threads of a block, and the most experts of a token."""


@inline(.always)
def sort_key(logit: Float32) -> Int32:
    """Gives an integer that orders as logits do: zeros of both signs alike, and a NaN at one end.

    Args:
        logit: The logit.

    Returns:
        The key.
    """
    var bits = bitcast[DType.int32, 1](logit + 0)  # -0 + 0 is +0
    return bits ^ ((bits >> 31) & 0x7FFF_FFFF)


def route_kernel(
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    experts: Int32,
    top_k: Int32,
):
    """Ranks a token's experts by counting the better ones, largest first, ties to the lower id, and weighs the first k.

    Ranks are of a total order, so ids stay valid and distinct whatever the logits.

    Args:
        ids: [T, k].
        weights: [T, k].
        logits: [T, experts].
        experts: E.
        top_k: Experts per token, k, at most `ROUTE_THREADS`.
    """
    var token = Int(block_idx.x)
    var thread = Int(thread_idx.x)
    var of_token = logits.unsafe_offset(token * Int(experts))
    var token_ids = ids.unsafe_offset(token * Int(top_k))
    var token_weights = weights.unsafe_offset(token * Int(top_k))
    for expert in range(thread, Int(experts), ROUTE_THREADS):
        var logit = of_token[unsafe_offset=expert]
        var key = sort_key(logit)
        var rank = 0
        for other in range(Int(experts)):
            var other_key = sort_key(of_token[unsafe_offset=other])
            if other_key > key or (other_key == key and other < expert):
                rank += 1
        if rank < Int(top_k):
            token_ids[unsafe_offset=rank] = Int32(expert)
            token_weights[unsafe_offset=rank] = logit
    barrier()
    var weight = Float32(0)
    if thread < Int(top_k):
        var largest = token_weights[unsafe_offset=0]
        var total = Float32(0)
        for j in range(Int(top_k)):
            var exponential = exp(token_weights[unsafe_offset=j] - largest)
            total += exponential
            if j == thread:
                weight = exponential
        weight /= total
    barrier()  # all logits are read
    if thread < Int(top_k):
        token_weights[unsafe_offset=thread] = weight


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
        experts: E.
        top_k: Experts per token, k.

    Raises:
        More experts of a token than a block has threads.
    """
    if top_k > ROUTE_THREADS:
        raise Error("moe.route: top_k must be at most ", ROUTE_THREADS, ", got ", top_k)
    if tokens == 0:
        return
    ctx.enqueue_function[route_kernel](
        ids,
        weights,
        logits,
        Int32(experts),
        Int32(top_k),
        grid_dim=tokens,
        block_dim=ROUTE_THREADS,
    )
