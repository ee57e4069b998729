"""Expert outputs summed back into token order and added to a residual: a thread for a few elements of a token."""

from std.math import ceildiv

from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..pointers import ConstPointer

comptime COMBINE_THREADS = 128
"""Threads of a block."""


def combine_kernel[
    width: Int
](
    result: MutPointer[BFloat16, MutUntrackedOrigin],
    y: ConstPointer[DType.bfloat16],
    places: ConstPointer[DType.int32],
    weights: ConstPointer[DType.float32],
    residual: ConstPointer[DType.bfloat16],
    rows: Int32,
    top_k: Int32,
    hidden: Int32,
):
    """Sums in float32, j upwards, the residual last, and leaves out rows that have no place.

    Parameters:
        width: Elements of a thread; `hidden` is a multiple of it.

    Args:
        result: [T, hidden].
        y: [rows, hidden], in expert order.
        places: [T, k], each below `rows`; what is negative or not below counts as no place.
        weights: [T, k].
        residual: [T, hidden].
        rows: P.
        top_k: Experts per token, k.
        hidden: H.
    """
    var token = Int(block_idx.x)
    var h = (Int(block_idx.y) * COMBINE_THREADS + Int(thread_idx.x)) * width
    if h >= Int(hidden):
        return
    var total = SIMD[DType.float32, width](0)
    for j in range(token * Int(top_k), (token + 1) * Int(top_k)):
        var place = Int(places[unsafe_offset=j])
        if place >= 0 and place < Int(rows):
            var values = y.unsafe_load[width=width, alignment=2 * width](place * Int(hidden) + h)
            total = values.cast[DType.float32]().fma(
                SIMD[DType.float32, width](weights[unsafe_offset=j]), total
            )
    var at = token * Int(hidden) + h
    var before = residual.unsafe_load[width=width, alignment=2 * width](at)
    result.unsafe_store[alignment=2 * width](
        at, (before.cast[DType.float32]() + total).cast[DType.bfloat16]()
    )


def enqueue_combine(
    ctx: DeviceContext,
    result: MutPointer[BFloat16, MutUntrackedOrigin],
    y: ConstPointer[DType.bfloat16],
    places: ConstPointer[DType.int32],
    weights: ConstPointer[DType.float32],
    residual: ConstPointer[DType.bfloat16],
    tokens: Int,
    top_k: Int,
    hidden: Int,
) raises:
    """Sums each token's experts and its residual on a device.

    Args:
        ctx: The device.
        result: [tokens, hidden].
        y: [tokens * top_k, hidden], in expert order.
        places: [tokens, top_k].
        weights: [tokens, top_k].
        residual: [tokens, hidden].
        tokens: T.
        top_k: Experts per token, k.
        hidden: H.

    Raises:
        The launch fails.
    """
    if tokens == 0 or hidden == 0:
        return
    if hidden % 8 == 0:
        _enqueue[8](ctx, result, y, places, weights, residual, tokens, top_k, hidden)
    else:
        _enqueue[1](ctx, result, y, places, weights, residual, tokens, top_k, hidden)


def _enqueue[
    width: Int
](
    ctx: DeviceContext,
    result: MutPointer[BFloat16, MutUntrackedOrigin],
    y: ConstPointer[DType.bfloat16],
    places: ConstPointer[DType.int32],
    weights: ConstPointer[DType.float32],
    residual: ConstPointer[DType.bfloat16],
    tokens: Int,
    top_k: Int,
    hidden: Int,
) raises:
    ctx.enqueue_function[combine_kernel[width]](
        result,
        y,
        places,
        weights,
        residual,
        Int32(tokens * top_k),
        Int32(top_k),
        Int32(hidden),
        grid_dim=(tokens, ceildiv(hidden, COMBINE_THREADS * width)),
        block_dim=COMBINE_THREADS,
    )
