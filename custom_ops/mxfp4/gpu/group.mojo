"""Sorts routed rows by expert, stably, with a block for each expert that needs nothing from the others."""

from std.math import ceildiv
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.primitives import block

from ..pointers import ConstPointer
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before

comptime GROUP_THREADS = 1024
"""Threads per block; each takes a run of consecutive rows. With 32 warps `block.prefix_sum` reads no slot of its own
that no warp has written, which the emulator would refuse."""


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(GROUP_THREADS)))
def group_kernel(
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    counts: MutPointer[Int32, MutUntrackedOrigin],
    ids: ConstPointer[DType.int32],
    rows: Int32,
    experts: Int32,
):
    """Counts the rows of lower experts, after which this expert's rows begin, and places its own rows in order.

    A row whose id is no expert gets the place -1 and belongs to no expert.

    Args:
        order: [rows]; written up to the last row that has a place.
        places: [rows].
        offsets: [experts + 1].
        counts: [experts], set to zero: the counters of `grouped_mlp_kernel`.
        ids: [rows].
        rows: P.
        experts: E.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    var expert = Int32(Int(block_idx.x))
    var thread = Int(thread_idx.x)
    var run = ceildiv(Int(rows), GROUP_THREADS)
    var begin = min(thread * run, Int(rows))
    var end = min(begin + run, Int(rows))
    var lower = Int32(0)
    var own = Int32(0)
    for row in range(begin, end):
        var id = ids[unsafe_offset=row]
        if id == expert:
            own += 1
        elif id >= 0 and id < expert:
            lower += 1
        elif expert == 0 and (id < 0 or id >= experts):
            places[unsafe_offset=row] = -1
    var first = block.sum[block_size=GROUP_THREADS](lower)
    var place = first + block.prefix_sum[block_size=GROUP_THREADS, exclusive=True](own)
    if thread == 0:
        offsets[unsafe_offset=Int(expert)] = first
        counts[unsafe_offset=Int(expert)] = 0
    if thread == GROUP_THREADS - 1 and expert == experts - 1:
        offsets[unsafe_offset=Int(experts)] = place + own
    for row in range(begin, end):
        if ids[unsafe_offset=row] == expert:
            order[unsafe_offset=Int(place)] = Int32(row)
            places[unsafe_offset=row] = place
            place += 1


def enqueue_group(
    ctx: DeviceContext,
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    counts: MutPointer[Int32, MutUntrackedOrigin],
    ids: ConstPointer[DType.int32],
    rows: Int,
    experts: Int,
) raises:
    """Sorts routed rows on a device.

    Args:
        ctx: The device.
        order: [rows].
        places: [rows].
        offsets: [experts + 1].
        counts: [experts], set to zero: the counters of `grouped_mlp_kernel`.
        ids: [rows].
        rows: P.
        experts: E.

    Raises:
        If the launch fails.
    """
    ctx.enqueue_function[group_kernel](
        order,
        places,
        offsets,
        counts,
        ids,
        Int32(rows),
        Int32(experts),
        grid_dim=experts,
        block_dim=GROUP_THREADS,
        attributes=overlap_attributes(ctx),
    )
