"""Routed rows sorted by expert, by counting: stable, one pass to count and one to place."""

from ..pointers import ConstPointer


def group_rows(
    ids: ConstPointer[DType.int32],
    rows: Int,
    experts: Int,
    order: MutPointer[Int32, MutUntrackedOrigin],
    places: MutPointer[Int32, MutUntrackedOrigin],
    offsets: MutPointer[Int32, MutUntrackedOrigin],
    counts: MutPointer[Int32, MutUntrackedOrigin],
) raises:
    """Writes which routed row stands at each place in expert order, the way back, where each expert's rows begin, and zeros.

    Args:
        ids: [rows] int32, the expert of routed row `t * k + j`.
        rows: P.
        experts: E.
        order: [rows] int32; `order[p]` is the routed row at place p.
        places: [rows] int32; `places[order[p]]` is p.
        offsets: [experts + 1] int32, from 0 to P.
        counts: [experts] int32, zeros.

    Raises:
        An id below 0 or not below E.
    """
    for expert in range(experts + 1):
        offsets[unsafe_offset=expert] = 0
    for row in range(rows):
        var expert = Int(ids[unsafe_offset=row])
        if expert < 0 or expert >= experts:
            raise Error(
                "moe.group: expert_ids[",
                row,
                "] must be in 0..",
                experts - 1,
                ", got ",
                expert,
            )
        offsets[unsafe_offset=expert + 1] += 1
    # The counts are where each expert's next row goes, until all have their places.
    for expert in range(experts):
        counts[unsafe_offset=expert] = offsets[unsafe_offset=expert]
        offsets[unsafe_offset=expert + 1] += offsets[unsafe_offset=expert]
    for row in range(rows):
        var expert = Int(ids[unsafe_offset=row])
        var place = counts[unsafe_offset=expert]
        order[unsafe_offset=Int(place)] = Int32(row)
        places[unsafe_offset=row] = place
        counts[unsafe_offset=expert] = place + 1
    for expert in range(experts):
        counts[unsafe_offset=expert] = 0
