"""Routes and groups few tokens in one block, with a warp per token, then a thread per row."""

from std.math import align_up
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import AddressSpace, external_memory

from ..pointers import ConstPointer
from .group import enqueue_group
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before
from .route import HELD_CHOICES, WARP, enqueue_route, route_token

comptime _THREADS = 1024
"""Threads of the block."""

comptime _FEW_TOKENS = 64
"""The most tokens that one block takes: two per warp."""

comptime _FEW_ROWS = 512
"""The most rows that one block takes: each is compared with all others, so for more a block per expert is faster."""

comptime _AT_ONCE = 8
"""Rows that a thread loads at once."""

comptime _SharedInts = Pointer[
    mut=True, Int32, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]


@inline(.always)
def _count_below(keys: _SharedInts, padded: Int32, bound: Int32) -> Int32:
    """Counts the keys below a bound."""
    var below = Int32(0)
    for first in range(Int32(0), padded, Int32(_AT_ONCE)):
        var found = keys.unsafe_load[width=_AT_ONCE, alignment=32](Int(first))
        comptime for i in range(_AT_ONCE):
            below += Int32(found[i] < bound)
    return below


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(_THREADS)))
def route_and_group_kernel[
    held: Int
](
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
    """Does the work of `route_kernel` and then of `group_kernel`.

    A row's key is `expert * P + row`, with P rounded up to whole loads. Sorting by it sorts rows by expert, stably: a
    row's place is the number of keys below its own, and an expert's offset the number of keys below `expert * P`.

    Parameters:
        held: Experts per lane.

    Args:
        ids: [T, k].
        weights: [T, k].
        order: [T * k].
        places: [T, k].
        offsets: [experts + 1].
        counts: [experts], set to zero: the counters of `grouped_mlp_kernel`.
        logits: [T, experts].
        tokens: T.
        experts: E, at least k and at most `held * WARP`.
        top_k: Experts per token, k, at most `WARP`.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    var thread = Int(thread_idx.x)
    var warp, lane = divmod(thread, WARP)
    var rows = tokens * top_k
    var padded = align_up(rows, Int32(_AT_ONCE))
    var keys = external_memory[Int32, address_space=AddressSpace.SHARED, alignment=32]()
    for token in range(warp, Int(tokens), _THREADS // WARP):
        var expert, weight = route_token[held](
            logits.unsafe_offset(token * Int(experts)), Int(experts), Int(top_k), lane
        )
        if lane < Int(top_k):
            var row = token * Int(top_k) + lane
            ids[unsafe_offset=row] = expert
            weights[unsafe_offset=row] = weight
            keys[unsafe_offset=row] = expert * padded + Int32(row)
    if thread < Int(padded - rows):
        keys[unsafe_offset=Int(rows) + thread] = Int32.MAX
    barrier()
    for row in range(thread, Int(rows), _THREADS):
        var place = _count_below(keys, padded, keys[unsafe_offset=row])
        places[unsafe_offset=row] = place
        order[unsafe_offset=Int(place)] = Int32(row)
    for expert in range(thread, Int(experts) + 1, _THREADS):
        offsets[unsafe_offset=expert] = _count_below(keys, padded, Int32(expert) * padded)
        if expert < Int(experts):
            counts[unsafe_offset=expert] = 0


def route_and_group_shared_bytes(rows: Int) -> Int:
    """Returns the shared memory of the block: a key per row.

    Args:
        rows: T * k.

    Returns:
        Bytes.
    """
    return 4 * align_up(rows, _AT_ONCE)


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
    """Routes tokens on a device and sorts their rows, in one kernel if they are few.

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
        experts: E, at least top_k and at most `MAX_EXPERTS`.
        top_k: Experts per token, k, at most `WARP`.

    Raises:
        If a launch fails.
    """
    var rows = tokens * top_k
    if tokens > _FEW_TOKENS or rows > _FEW_ROWS:
        enqueue_route(ctx, ids, weights, logits, tokens, experts, top_k)
        enqueue_group(ctx, order, places, offsets, counts, ids, rows, experts)
        return
    comptime for i in range(HELD_CHOICES):
        comptime held = 4**i
        if experts <= held * WARP:
            ctx.enqueue_function[route_and_group_kernel[held]](
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
                block_dim=_THREADS,
                attributes=overlap_attributes(ctx),
                shared_mem_bytes=route_and_group_shared_bytes(rows),
            )
            return
