"""Grouped matmul with MXFP4 weights in the checkpoint's own layout: the reference on any GPU.

Each thread computes one output and reads its whole row of weights: correct for every scale byte, but slow.
"""

from std.math import ceildiv

from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..activations import Activations
from ..decode import decode_e8m0
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from ..pointers import ConstPointer
from ..swiglu import swiglu
from .dequantize import WORD_CODES, decode_codes

comptime STRIDED_THREADS = 128
"""Threads per block."""


@inline(.always)
def _dot(
    x: ConstPointer[DType.bfloat16],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    groups: Int,
) -> Float32:
    """Multiplies a row of activations by a row of weights; the scale multiplies a group's sum."""
    comptime words = GROUP_SIZE // WORD_CODES
    var total = Float32(0)
    for group in range(groups):
        var codes = blocks.unsafe_bitcast[UInt32]().unsafe_load[width=words, alignment=16](
            group * words
        )
        var of_group = SIMD[DType.float32, WORD_CODES](0)
        comptime for word in range(words):
            var values = x.unsafe_load[width=WORD_CODES, alignment=16](
                group * GROUP_SIZE + word * WORD_CODES
            )
            of_group = decode_codes(codes[word]).fma(values.cast[DType.float32](), of_group)
        var scale = decode_e8m0(scales[unsafe_offset=group].cast[DType.uint32]())
        total += of_group.reduce_add() * scale
    return total


def strided_kernel[
    gated: Bool
](
    y: MutPointer[BFloat16, MutUntrackedOrigin],
    x: ConstPointer[DType.bfloat16],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    bias: ConstPointer[DType.bfloat16],
    offsets: ConstPointer[DType.int32],
    order: ConstPointer[DType.int32],
    rows: Int32,
    experts: Int32,
    n: Int32,
    k: Int32,
    top_k: Int32,
    limit: Float32,
):
    """Computes one output of routed row `block_idx.x`, or nothing where no expert has that row.

    Parameters:
        gated: Whether SwiGLU follows; an output then takes two rows of weights.

    Args:
        y: [P, N], or [P, N / 2] where gated.
        x: [T, K], or [P, K] where `top_k` is 0.
        blocks: [E, N, K / 32, 16].
        scales: [E, N, K / 32].
        bias: [E, N].
        offsets: [E + 1].
        order: [P]; not read if `top_k` is 0.
        rows: P.
        experts: E.
        n: N.
        k: K, a multiple of 32.
        top_k: Routed rows per token, or 0 if the rows of x are in expert order.
        limit: SwiGLU's clamp.
    """
    comptime weight_rows = 2 if gated else 1
    var place = Int(block_idx.x)
    var outputs = Int(n) // weight_rows
    var output = Int(block_idx.y) * STRIDED_THREADS + Int(thread_idx.x)
    var expert = 0
    while expert < Int(experts) and not (
        Int(offsets[unsafe_offset=expert]) <= place
        and place < Int(offsets[unsafe_offset=expert + 1])
    ):
        expert += 1
    var row = Activations(x, order, Int(rows), Int(k), Int(top_k)).row(place)
    if expert == Int(experts) or row < 0 or output >= outputs:
        return
    var groups = Int(k) // GROUP_SIZE
    var of_row = x.unsafe_offset(row * Int(k))
    var sums = SIMD[DType.float32, 2](0)
    comptime for i in range(weight_rows):
        var weight_row = expert * Int(n) + output * weight_rows + i
        var sum = _dot(
            of_row,
            blocks.unsafe_offset(weight_row * groups * BYTES_PER_GROUP),
            scales.unsafe_offset(weight_row * groups),
            groups,
        )
        sums[i] = sum + bias[unsafe_offset=weight_row].cast[DType.float32]()
    var result = sums[0]
    comptime if gated:
        result = swiglu(sums[0], sums[1], limit)
    y[unsafe_offset=place * outputs + output] = result.cast[DType.bfloat16]()


def enqueue_strided[
    gated: Bool
](
    ctx: DeviceContext,
    y: MutPointer[BFloat16, MutUntrackedOrigin],
    activations: Activations,
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    bias: ConstPointer[DType.bfloat16],
    offsets: ConstPointer[DType.int32],
    experts: Int,
    n: Int,
    limit: Float32,
) raises:
    """Multiplies on a device.

    Parameters:
        gated: Whether SwiGLU follows.

    Args:
        ctx: The device.
        y: [P, n], or [P, n / 2] where gated.
        activations: The activations.
        blocks: [experts, n, k / 32, 16].
        scales: [experts, n, k / 32].
        bias: [experts, n].
        offsets: [experts + 1].
        experts: E.
        n: Weight rows of an expert.
        limit: SwiGLU's clamp.

    Raises:
        If the launch fails.
    """
    var outputs = n // 2 if gated else n
    if activations.rows == 0 or outputs == 0:
        return
    ctx.enqueue_function[strided_kernel[gated]](
        y,
        activations.x,
        blocks,
        scales,
        bias,
        offsets,
        activations.order,
        Int32(activations.rows),
        Int32(experts),
        Int32(n),
        Int32(activations.k),
        Int32(activations.top_k),
        limit,
        grid_dim=(activations.rows, ceildiv(outputs, STRIDED_THREADS)),
        block_dim=STRIDED_THREADS,
    )
