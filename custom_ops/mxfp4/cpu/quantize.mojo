"""Rows of floats rounded to MXFP4, for weights made outside a checkpoint; no matmul here goes through it."""

from ..encode import encode_e2m1, pack_e2m1, shared_scale, widen_bits
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from ..pointers import ConstPointer


def quantize_groups[
    dtype: DType
](
    x: ConstPointer[dtype],
    begin: Int,
    end: Int,
    blocks: MutPointer[UInt8, MutUntrackedOrigin],
    scales: MutPointer[UInt8, MutUntrackedOrigin],
):
    """Writes for groups begin..end-1 `scales[g] = clamp(floor(log2(amax of group g)) - 2) + 127` and the 32 codes of
    `x[32 g + i] / 2^(scales[g] - 127)`, rounded to nearest even and saturating.

    Parameters:
        dtype: Of the input, float32 or bfloat16.

    Args:
        x: [groups, 32], at any address.
        begin: First group.
        end: One past the last.
        blocks: [groups, 16] uint8, the earlier element in the low nibble.
        scales: [groups] uint8 E8M0; 255 for groups that are not finite, whose codes are 0.
    """
    for group in range(begin, end):
        var bits = widen_bits(x.unsafe_load[width=GROUP_SIZE, alignment=1](group * GROUP_SIZE))
        var scale = shared_scale(bits)
        var codes = encode_e2m1(bits, SIMD[DType.uint32, GROUP_SIZE](scale))
        blocks.unsafe_store[alignment=1](group * BYTES_PER_GROUP, pack_e2m1(codes))
        scales[unsafe_offset=group] = scale.cast[DType.uint8]()
