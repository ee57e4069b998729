"""Expands MXFP4 groups to floats, with a thread for every eight codes."""

from std.math import ceildiv

from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..decode import decode_e2m1_f32_portable, decode_e8m0, narrow_exact
from ..format import GROUP_SIZE
from ..pointers import ConstPointer

comptime DEQUANTIZE_THREADS = 256
"""Threads per block."""

comptime WORD_CODES = 8
"""Codes per thread: 32 bits."""


@inline(.always)
def decode_codes(word: UInt32) -> SIMD[DType.float32, WORD_CODES]:
    """Decodes eight codes, the lowest bits first.

    Args:
        word: The codes.

    Returns:
        Their values.
    """
    var codes = SIMD[DType.uint32, WORD_CODES](0)
    comptime for i in range(WORD_CODES):
        codes[i] = word >> UInt32(4 * i)
    return decode_e2m1_f32_portable(codes)


def dequantize_kernel[
    dtype: DType
](
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    groups: Int64,
):
    """Expands one word of codes.

    Parameters:
        dtype: Type of the output, float32 or bfloat16.

    Args:
        y: [groups, 32].
        blocks: [groups, 16].
        scales: [groups].
        groups: Number of groups in all rows.
    """
    comptime words_of_group = GROUP_SIZE // WORD_CODES
    var word = Int(block_idx.x) * DEQUANTIZE_THREADS + Int(thread_idx.x)
    var group = word // words_of_group
    if group >= Int(groups):
        return
    var codes = blocks.unsafe_bitcast[UInt32]()[unsafe_offset=word]
    var scale = decode_e8m0(scales[unsafe_offset=group].cast[DType.uint32]())
    var values = decode_codes(codes) * SIMD[DType.float32, WORD_CODES](scale)
    y.unsafe_store(word * WORD_CODES, narrow_exact[dtype](values))


def enqueue_dequantize[
    dtype: DType
](
    ctx: DeviceContext,
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    groups: Int,
) raises:
    """Expands groups on a device.

    Parameters:
        dtype: Type of the output, float32 or bfloat16.

    Args:
        ctx: The device.
        y: [groups, 32].
        blocks: [groups, 16].
        scales: [groups].
        groups: Number of groups in all rows.

    Raises:
        If the launch fails.
    """
    if groups == 0:
        return
    ctx.enqueue_function[dequantize_kernel[dtype]](
        y,
        blocks,
        scales,
        Int64(groups),
        grid_dim=ceildiv(groups * (GROUP_SIZE // WORD_CODES), DEQUANTIZE_THREADS),
        block_dim=DEQUANTIZE_THREADS,
    )
