"""Routing and grouping of few tokens by one block: a warp for a token, then a thread for an expert."""

from std.math import align_up
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import AddressSpace, external_memory
from max.gpu.primitives import block
from max.gpu.sync import syncwarp

from ..pointers import ConstPointer
from .group import GROUP_THREADS, enqueue_group
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before
from .route import SHARED_BYTES, WARP, enqueue_route, route_shared_bytes, route_token

comptime _FEW_TOKENS = 64
"""Two for each warp."""

comptime _AT_ONCE = 4
"""Rows that a thread looks at together."""

comptime _OF_PREFIX_SUM = 128
"""Bytes of shared memory that `block.prefix_sum` takes beside what the launch asks for."""

comptime _WARPS = GROUP_THREADS // WARP


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(GROUP_THREADS)))
def route_and_group_kernel(
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    counts: MutPointer[Int32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    tokens: Int32,
    experts: Int32,
    top_k: Int32,
):
    """Does what `route_kernel` and `group_kernel` do one after the other.

    Args:
        ids: [T, k].
        weights: [T, k].
        order: [T * k].
        places: [T, k].
        offsets: [experts + 1].
        counts: [experts], zeros, for `grouped_mlp_kernel` to count in.
        logits: [T, experts].
        tokens: T.
        experts: E, at most `GROUP_THREADS`.
        top_k: Experts per token, k, at most `WARP`.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    var thread = Int(thread_idx.x)
    var warp, lane = divmod(thread, WARP)
    var rows = Int(tokens * top_k)
    var of_warp = route_shared_bytes(Int(experts), Int(top_k)) // 4
    var shared = external_memory[Int32, address_space=AddressSpace.SHARED, alignment=16]()
    var experts_of_rows = shared.unsafe_offset(_WARPS * of_warp)
    for token in range(warp, Int(tokens), _WARPS):
        var expert, weight = route_token[WARP](
            shared.unsafe_offset(warp * of_warp),
            logits.unsafe_offset(token * Int(experts)),
            Int(experts),
            Int(top_k),
            lane,
        )
        if lane < Int(top_k):
            var row = token * Int(top_k) + lane
            ids[unsafe_offset=row] = expert
            weights[unsafe_offset=row] = weight
            experts_of_rows[unsafe_offset=row] = expert
        syncwarp()  # read before the next token's are written
    var padded = align_up(rows, _AT_ONCE)
    if thread < padded - rows:
        experts_of_rows[unsafe_offset=rows + thread] = -1
    barrier()
    var own = Int32(0)
    if thread < Int(experts):
        for first in range(0, padded, _AT_ONCE):
            var found = experts_of_rows.unsafe_load[width=_AT_ONCE, alignment=16](first)
            comptime for i in range(_AT_ONCE):
                own += Int32(found[i] == Int32(thread))
    var place = block.prefix_sum[block_size=GROUP_THREADS, exclusive=True](own)
    if thread < Int(experts):
        offsets[unsafe_offset=thread] = place
        counts[unsafe_offset=thread] = 0
        for first in range(0, padded, _AT_ONCE):
            var found = experts_of_rows.unsafe_load[width=_AT_ONCE, alignment=16](first)
            comptime for i in range(_AT_ONCE):
                if found[i] == Int32(thread):
                    order[unsafe_offset=Int(place)] = Int32(first + i)
                    places[unsafe_offset=first + i] = place
                    place += 1
    if thread == 0:
        offsets[unsafe_offset=Int(experts)] = Int32(rows)


def route_and_group_shared_bytes(tokens: Int, experts: Int, top_k: Int) -> Int:
    """Gives the shared memory of the block: a token's for each warp, and the experts of all rows.

    Args:
        tokens: T.
        experts: E.
        top_k: Experts per token, k.

    Returns:
        Bytes.
    """
    return _WARPS * route_shared_bytes(experts, top_k) + 4 * align_up(tokens * top_k, _AT_ONCE)


def enqueue_route_and_group(
    ctx: DeviceContext,
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    counts: MutPointer[Int32, MutUntrackedOrigin],
    logits: ConstPointer[DType.float32],
    tokens: Int,
    experts: Int,
    top_k: Int,
) raises:
    """Routes tokens on a device and sorts their rows, few of them in one kernel.

    Args:
        ctx: The device.
        ids: [tokens, top_k].
        weights: [tokens, top_k].
        order: [tokens * top_k].
        places: [tokens, top_k].
        offsets: [experts + 1].
        counts: [experts].
        logits: [tokens, experts].
        tokens: T.
        experts: E.
        top_k: Experts per token, k.

    Raises:
        As `enqueue_route`.
    """
    var shared_bytes = route_and_group_shared_bytes(tokens, experts, top_k)
    var few = tokens <= _FEW_TOKENS and experts <= GROUP_THREADS and top_k <= WARP
    if not few or shared_bytes + _OF_PREFIX_SUM > SHARED_BYTES:
        enqueue_route(ctx, ids, weights, logits, tokens, experts, top_k)
        enqueue_group(ctx, order, places, offsets, counts, ids, tokens * top_k, experts)
        return
    ctx.enqueue_function[route_and_group_kernel](
        ids,
        weights,
        order,
        places,
        offsets,
        counts,
        logits,
        Int32(tokens),
        Int32(experts),
        Int32(top_k),
        grid_dim=1,
        block_dim=GROUP_THREADS,
        attributes=overlap_attributes(ctx),
        shared_mem_bytes=shared_bytes,
    )
