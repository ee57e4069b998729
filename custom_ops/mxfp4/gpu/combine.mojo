"""Sums expert outputs back into token order and adds a residual; each thread takes a few elements of a token."""

from std.math import ceildiv
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..pointers import ConstPointer
from .overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before

comptime COMBINE_THREADS = 128
"""Threads per block."""

comptime _AT_ONCE = 4
"""Rows that a thread loads at once."""

comptime _MAX_ELEMENTS = 1 << 31
"""Limit on the elements of the result: the kernel counts in 32 bits."""


# With eight blocks per multiprocessor, 64 registers cost no more than 32, and ptxas keeps all loads before the sums.
@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(COMBINE_THREADS)),
    `nvvm.minctasm`=SIMDLength(8),
)
def combine_kernel[
    width: Int
](
    result: MutPointer[BFloat16, MutUntrackedOrigin],
    y: ConstPointer[DType.bfloat16],
    places: ConstPointer[DType.int32],
    weights: ConstPointer[DType.float32],
    residual: ConstPointer[DType.bfloat16],
    tokens: Int32,
    top_k: Int32,
    hidden: Int32,
):
    """Sums in float32, in ascending j and the residual last, and leaves out rows that have no place.

    Parameters:
        width: Elements per thread; `hidden` is a multiple of it.

    Args:
        result: [T, hidden].
        y: [T * k, hidden], in expert order.
        places: [T, k], places in expert order; one outside 0..T * k - 1 counts as no place.
        weights: [T, k].
        residual: [T, hidden].
        tokens: T.
        top_k: Experts per token, k, at least one.
        hidden: H.
    """
    wait_for_kernels_before()
    let_next_kernel_begin()
    # A token's threads may begin anywhere in a block: if places were the same for a whole block, ptxas would move each
    # to a uniform register, and wait for it, before loading the next.
    var number = UInt32(Int(block_idx.x)) * COMBINE_THREADS + UInt32(Int(thread_idx.x))
    var token, part = divmod(number, UInt32(hidden) // UInt32(width))
    if token >= UInt32(tokens):
        return
    var of_token = Int(token * UInt32(top_k))
    var at = Int(number) * width
    var before = SIMD[DType.bfloat16, width](0)
    var total = SIMD[DType.float32, width](0)
    for first in range(0, Int(top_k), _AT_ONCE):
        # No branches between the loads, so that all are in flight together; a missing row loads another one instead.
        var found = Array[Int32, _AT_ONCE](fill=0)
        var shares = Array[Float32, _AT_ONCE](fill=0)
        comptime for i in range(_AT_ONCE):
            var j = of_token + min(first + i, Int(top_k) - 1)
            found[i] = places[unsafe_offset=j]
            shares[i] = weights[unsafe_offset=j]
        var values = Array[SIMD[DType.bfloat16, width], _AT_ONCE](fill=0)
        comptime for i in range(_AT_ONCE):
            if first + i >= Int(top_k) or found[i] >= tokens * top_k:
                found[i] = -1
            var row = Int(max(found[i], 0)) * Int(hidden)
            # Not `invariant`: the preceding kernel may still be writing this memory when this one begins.
            values[i] = y.unsafe_load[width=width, alignment=2 * width, invariant=False](
                row + Int(part) * width
            )
        # Loaded among the rows: if it came before the loop, ptxas would unpack it there, and so wait for it, before
        # loading the first place.
        if first == 0:
            before = residual.unsafe_load[width=width, alignment=2 * width, invariant=False](at)
        comptime for i in range(_AT_ONCE):
            var share = SIMD[DType.float32, width](shares[i])
            var more = values[i].cast[DType.float32]().fma(share, total)
            total = more if found[i] >= 0 else total
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
        If a token has no experts, there are too many elements, or the launch fails.
    """
    if tokens == 0 or hidden == 0:
        return
    if top_k == 0:
        raise Error("moe.combine: on a GPU a token must have an expert, got none")
    if tokens * max(top_k, hidden) >= _MAX_ELEMENTS:
        raise Error(
            "moe.combine: on a GPU tokens * hidden must be below 2^31, got ", tokens, " * ", hidden
        )
    var aligned = (Int(result) | Int(y) | Int(residual)) % 16 == 0
    comptime for width in [8, 1]:
        if width == 1 or (hidden % width == 0 and aligned):
            ctx.enqueue_function[combine_kernel[width]](
                result,
                y,
                places,
                weights,
                residual,
                Int32(tokens),
                Int32(top_k),
                Int32(hidden),
                grid_dim=ceildiv(tokens * (hidden // width), COMBINE_THREADS),
                block_dim=COMBINE_THREADS,
                attributes=overlap_attributes(ctx),
            )
            return
