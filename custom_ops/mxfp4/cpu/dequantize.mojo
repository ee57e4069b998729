"""MXFP4 rows expanded to floats, for inspection and reference; no matmul here goes through it."""

from ..decode import decode_e2m1_f32_portable, decode_e8m0, narrow_exact
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from ..pointers import ConstPointer


def dequantize_groups[
    dtype: DType
](
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    begin: Int,
    end: Int,
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
):
    """Writes `y[32 g + i] = e2m1(code i of group g) * 2^(scales[g] - 127)` for groups begin..end-1.

    Parameters:
        dtype: Of the output, float32 or bfloat16; both hold every finite product below their overflow exactly.

    Args:
        blocks: [groups, 16] uint8, the earlier element in the low nibble.
        scales: [groups] uint8 E8M0.
        begin: First group.
        end: One past the last.
        y: [groups, 32].
    """
    for group in range(begin, end):
        var bytes = blocks.unsafe_load[width=BYTES_PER_GROUP, alignment=1](
            group * BYTES_PER_GROUP
        ).cast[DType.uint32]()
        var scale = decode_e8m0(
            SIMD[DType.uint32, 1](scales[unsafe_offset=group].cast[DType.uint32]())
        )
        var codes = bytes.interleave(bytes >> 4)
        var values = decode_e2m1_f32_portable(codes) * SIMD[DType.float32, GROUP_SIZE](scale[0])
        y.unsafe_store(group * GROUP_SIZE, narrow_exact[dtype](values))
