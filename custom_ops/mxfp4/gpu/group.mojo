"""Routed rows sorted by expert, stably: a block for each expert, which needs nothing of the others."""

from std.math import ceildiv

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import AddressSpace, external_memory

from ..pointers import ConstPointer

comptime GROUP_THREADS = 256
"""Threads of a block; each takes a run of consecutive rows."""

comptime GROUP_SHARED_BYTES = 2 * 4 * GROUP_THREADS
"""Shared memory of a block: two counts for each thread."""


def group_kernel(
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    ids: ConstPointer[DType.int32],
    rows: Int32,
    experts: Int32,
):
    """Counts the rows of lower experts, behind which this expert's begin, and places its own in their order.

    A row whose id is no expert has the place -1 and is in no expert's rows.

    Args:
        order: [rows]; written up to the last row that has a place.
        places: [rows].
        offsets: [experts + 1].
        ids: [rows].
        rows: P.
        experts: E.
    """
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
    # Inclusive sums over threads: each step adds the one twice as far.
    var owns = external_memory[Int32, address_space=AddressSpace.SHARED, alignment=16]()
    var lowers = owns.unsafe_offset(GROUP_THREADS)
    owns[unsafe_offset=thread] = own
    lowers[unsafe_offset=thread] = lower
    var distance = 1
    while distance < GROUP_THREADS:
        barrier()
        var more_own = Int32(0)
        var more_lower = Int32(0)
        if thread >= distance:
            more_own = owns[unsafe_offset=thread - distance]
            more_lower = lowers[unsafe_offset=thread - distance]
        barrier()
        owns[unsafe_offset=thread] += more_own
        lowers[unsafe_offset=thread] += more_lower
        distance *= 2
    barrier()
    var first = lowers[unsafe_offset=GROUP_THREADS - 1]
    if thread == 0:
        offsets[unsafe_offset=Int(expert)] = first
        if expert == experts - 1:
            offsets[unsafe_offset=Int(experts)] = first + owns[unsafe_offset=GROUP_THREADS - 1]
    var place = first + owns[unsafe_offset=thread] - own
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
        ids: [rows].
        rows: P.
        experts: E.

    Raises:
        The launch fails.
    """
    ctx.enqueue_function[group_kernel](
        order,
        places,
        offsets,
        ids,
        Int32(rows),
        Int32(experts),
        grid_dim=experts,
        block_dim=GROUP_THREADS,
        shared_mem_bytes=GROUP_SHARED_BYTES,
    )
