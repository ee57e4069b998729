"""Top-k of router logits and the softmax over those k: a block for each token, its logits in shared memory."""

from std.math import align_up, exp
from std.memory import bitcast

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import AddressSpace, external_memory
from max.gpu.sync import syncwarp

from ..pointers import ConstPointer
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before

comptime ROUTE_THREADS = 128
"""Threads of a block, and the most experts of a token."""

comptime _KEYS_AT_ONCE = 4
"""Keys that a thread loads at once."""

comptime WARP = 32
"""Threads of a warp."""

comptime SHARED_BYTES = 48 * 1024
"""What a block may have on any GPU without asking for more."""


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


comptime SharedInts = Pointer[
    mut=True, Int32, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Numbers in shared memory."""


@inline(.always)
def _meet[threads: Int]():
    comptime if threads == WARP:
        syncwarp()
    else:
        barrier()


@inline(.always)
def route_token[
    threads: Int
](
    shared: SharedInts,
    logits: ConstPointer[DType.float32],
    experts: Int,
    top_k: Int,
    thread: Int,
) -> Tuple[Int32, Float32]:
    """Ranks a token's experts by counting the better ones, largest first, ties to the lower id, and weighs the first k.

    Ranks are of a total order, so ids stay valid and distinct whatever the logits.

    Parameters:
        threads: That do it: a warp, or a block.

    Args:
        shared: Room for `route_shared_bytes`.
        logits: [experts].
        experts: E.
        top_k: Experts per token, k, at most `threads`.
        thread: Which one of them.

    Returns:
        For thread j < k, the expert of rank j and its weight.
    """
    var keys = shared
    var padded = align_up(experts, _KEYS_AT_ONCE)
    for expert in range(thread, padded, threads):
        # What fills up the last few ranks behind all experts.
        var key = Int32.MIN
        if expert < experts:
            key = sort_key(logits[unsafe_offset=expert])
        keys[unsafe_offset=expert] = key
    _meet[threads]()
    var ids = shared.unsafe_offset(padded)
    var chosen = ids.unsafe_offset(top_k).unsafe_bitcast[Float32]()
    for expert in range(thread, experts, threads):
        var key = keys[unsafe_offset=expert]
        var rank = Int32(0)
        for first in range(Int32(0), Int32(padded), Int32(_KEYS_AT_ONCE)):
            var others = keys.unsafe_load[width=_KEYS_AT_ONCE, alignment=16](Int(first))
            var before = Int32(expert) - first
            comptime for i in range(_KEYS_AT_ONCE):
                rank += Int32(others[i] > key) + Int32(others[i] == key and Int32(i) < before)
        if rank < Int32(top_k):
            ids[unsafe_offset=Int(rank)] = Int32(expert)
            chosen[unsafe_offset=Int(rank)] = logits[unsafe_offset=expert]
    _meet[threads]()
    if thread >= top_k:
        return Int32(-1), Float32(0)
    var largest = chosen[unsafe_offset=0]
    var total = Float32(0)
    for j in range(top_k):
        total += exp(chosen[unsafe_offset=j] - largest)
    return ids[unsafe_offset=thread], exp(chosen[unsafe_offset=thread] - largest) / total


def route_kernel(
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    experts: Int32,
    top_k: Int32,
):
    """Routes a token.

    Args:
        ids: [T, k].
        weights: [T, k].
        logits: [T, experts].
        experts: E.
        top_k: Experts per token, k, at most `ROUTE_THREADS`.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    var token = Int(block_idx.x)
    var thread = Int(thread_idx.x)
    var expert, weight = route_token[ROUTE_THREADS](
        external_memory[Int32, address_space=AddressSpace.SHARED, alignment=16](),
        logits.unsafe_offset(token * Int(experts)),
        Int(experts),
        Int(top_k),
        thread,
    )
    if thread < Int(top_k):
        ids[unsafe_offset=token * Int(top_k) + thread] = expert
        weights[unsafe_offset=token * Int(top_k) + thread] = weight


def route_shared_bytes(experts: Int, top_k: Int) -> Int:
    """Gives the shared memory of a token: its keys, then its experts and their logits.

    Args:
        experts: E.
        top_k: Experts per token, k.

    Returns:
        Bytes.
    """
    return 4 * align_up(align_up(experts, _KEYS_AT_ONCE) + 2 * top_k, _KEYS_AT_ONCE)


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
        More experts of a token than a block has threads, or more experts than fit its shared memory.
    """
    if top_k > ROUTE_THREADS:
        raise Error("moe.route: top_k must be at most ", ROUTE_THREADS, ", got ", top_k)
    if route_shared_bytes(experts, top_k) > SHARED_BYTES:
        var most = (SHARED_BYTES // 4 - 2 * top_k) // _KEYS_AT_ONCE * _KEYS_AT_ONCE
        raise Error("moe.route: experts must be at most ", most, ", got ", experts)
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
        attributes=overlap_attributes(ctx),
        shared_mem_bytes=route_shared_bytes(experts, top_k),
    )
