"""Puts the grouped matmul for Hopper on a device's stream."""

from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.host.launch_attribute import LaunchAttribute

from ..activations import Activations
from ..gpu.overlap import overlap_attributes
from ..pointers import ConstPointer
from .config import (
    DECODE_8,
    DECODE_16,
    MAX_EXPERTS,
    MIDDLE_64,
    PREFILL_128,
    Sm90Config,
    choose_config,
)
from .epilogue import Output
from .grouped_matmul import grouped_matmul_kernel


comptime MAX_ELEMENTS = 1 << 34
"""Of x: the kernel counts eight at a time, in 32 bits with a sign."""

comptime MAX_ITEMS = 1 << 30
"""Tiles of outputs: the kernel counts them, and up to a round of blocks more, in 32 bits with a sign."""


def enqueue_grouped_matmul[
    gated: Bool
](
    ctx: DeviceContext,
    output: Output[gated],
    activations: Activations,
    weights: ConstPointer[DType.uint8],
    offsets: ConstPointer[DType.int32],
    experts: Int,
    overlapping: Bool,
) raises:
    """Multiplies with the configuration that `choose_config` gives.

    Parameters:
        gated: Whether SwiGLU follows.

    Args:
        ctx: The device.
        output: Where to, and what comes before it.
        activations: What is multiplied.
        weights: Packed, see `Sm90Tiles`.
        offsets: [experts + 1].
        experts: E.
        overlapping: Whether to begin while the kernel before still runs. Weights and bias must be older than that one; and
            where not gated so must be `offsets`: it must have waited for what wrote them before it let this one begin.

    Raises:
        There are too many experts, the activations are too large, offsets could make too many tiles of outputs, or the
        launch fails.
    """
    if activations.rows == 0 or output.n == 0 or experts == 0:
        return
    if experts > MAX_EXPERTS:
        raise Error(
            "mxfp4: on Hopper there may be ",
            MAX_EXPERTS,
            " experts, got ",
            experts,
            "; MXFP4_GROUPED_KERNEL=strided takes more",
        )
    var elements = activations.rows // max(activations.top_k, 1) * activations.k
    if elements >= MAX_ELEMENTS:
        raise Error(
            "mxfp4: on Hopper x must have fewer than 2^34 elements, got ",
            elements,
            "; multiply it in parts",
        )
    var chosen = choose_config(activations.rows, experts)
    if chosen == DECODE_8:
        _enqueue[DECODE_8](ctx, output, activations, weights, offsets, experts, overlapping)
    elif chosen == DECODE_16:
        _enqueue[DECODE_16](ctx, output, activations, weights, offsets, experts, overlapping)
    elif chosen == MIDDLE_64:
        _enqueue[MIDDLE_64](ctx, output, activations, weights, offsets, experts, overlapping)
    else:
        _enqueue[PREFILL_128](ctx, output, activations, weights, offsets, experts, overlapping)


def _enqueue[
    gated: Bool, //, config: Sm90Config
](
    ctx: DeviceContext,
    output: Output[gated],
    activations: Activations,
    weights: ConstPointer[DType.uint8],
    offsets: ConstPointer[DType.int32],
    experts: Int,
    overlapping: Bool,
) raises:
    var items = config.most_items_listed(activations.rows, experts, output.n)
    if items >= MAX_ITEMS:
        raise Error(
            (
                "mxfp4: on Hopper outputs of all rows by every expert must be fewer than 2^30"
                " tiles, got "
            ),
            items,
            "; multiply x in parts",
        )
    var attributes: List[LaunchAttribute] = []
    # Without k nothing would be waited for before y is written.
    if overlapping and activations.k > 0:
        attributes = overlap_attributes(ctx)
    var multiprocessors = Int(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT))
    ctx.enqueue_function[grouped_matmul_kernel[config, gated]](
        output.y,
        activations.x,
        weights,
        output.bias,
        offsets,
        activations.order,
        Int32(activations.rows),
        Int32(experts),
        Int32(output.n),
        Int32(activations.k),
        Int32(activations.top_k),
        output.limit,
        grid_dim=min(
            config.most_items(activations.rows, experts, output.n), multiprocessors * config.blocks
        ),
        block_dim=config.threads(),
        shared_mem_bytes=config.shared_bytes(),
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(UInt32(config.shared_bytes())),
        attributes=attributes^,
    )
