"""Enqueues the grouped matmuls for Hopper on a device's stream."""

from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.host.launch_attribute import (
    LaunchAttribute,
    LaunchAttributeID,
    LaunchAttributeValue,
)

from ..activations import Activations
from ..gpu.overlap import overlap_attributes
from ..pointers import ConstPointer
from .config import (
    DECODE_8,
    DECODE_16,
    MAX_EXPERTS,
    MIDDLE_64,
    MLP_8,
    MLP_16,
    PREFILL_128,
    Sm90Config,
    choose_config,
)
from .epilogue import Output
from .grouped_matmul import grouped_matmul_kernel
from .grouped_mlp import Counts, grouped_mlp_kernel


comptime MAX_ELEMENTS = 1 << 34
"""Limit on the elements of x: the kernel counts them in units of eight, in signed 32-bit integers."""

comptime MAX_ITEMS = 1 << 30
"""Limit on output tiles: the kernel counts them, and up to one grid more, in signed 32-bit integers."""

comptime _ALL_SHARED = 100
"""Percent of a multiprocessor's shared memory that a launch asks for, of what its first-level cache could have, too."""


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
    """Launches the grouped matmul in the configuration that `choose_config` returns.

    Parameters:
        gated: Whether SwiGLU follows.

    Args:
        ctx: The device.
        output: The output tensor and its epilogue.
        activations: The activations.
        weights: Packed, see `Sm90Tiles`.
        offsets: [experts + 1].
        experts: E.
        overlapping: Whether to begin while the preceding kernel still runs. Weights and bias must be older than that
            kernel. If not gated, so must `offsets`: that kernel must have waited for what wrote them before it let this
            one begin.

    Raises:
        If there are too many experts, the activations are too large, offsets could make too many output tiles, or the
        launch fails.
    """
    if activations.rows == 0 or output.n == 0 or experts == 0:
        return
    _check(activations, experts)
    var chosen = choose_config(activations.rows, experts)
    comptime for config in [DECODE_8, DECODE_16, MIDDLE_64, PREFILL_128]:
        if chosen == config:
            _enqueue[config](ctx, output, activations, weights, offsets, experts, overlapping)


def _check(activations: Activations, experts: Int) raises:
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
    _check_items(config.most_items_listed(activations.rows, experts, output.n))
    var attributes: List[LaunchAttribute] = []
    # With k = 0 there is no stage to wait for, so y could be written before the preceding kernel has finished.
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


def _check_items(items: Int) raises:
    if items >= MAX_ITEMS:
        raise Error(
            (
                "mxfp4: on Hopper outputs of all rows by every expert must be fewer than 2^30"
                " tiles, got "
            ),
            items,
            "; multiply x in parts",
        )


def enqueue_grouped_mlp(
    ctx: DeviceContext,
    output: Output[gated=False],
    inner: Output[gated=True],
    stored: Counts,
    activations: Activations,
    gate_up: ConstPointer[DType.uint8],
    down: ConstPointer[DType.uint8],
    offsets: ConstPointer[DType.int32],
    experts: Int,
) raises:
    """Launches both matmuls: for few tokens as one kernel, which loads the second's weights right after the first's.

    Where the device has no room for all blocks of that kernel side by side, each matmul is a launch.

    Either way the launch overlaps the preceding kernel, which may write every input but weights and biases.

    Args:
        ctx: The device.
        output: [P, hidden], and its bias.
        inner: [P, inner], the intermediate result, with its bias and limit.
        stored: [E], zeros: the counters of `grouped_mlp_kernel`.
        activations: [T, hidden].
        gate_up: Packed [E, 2 inner, hidden], see `Sm90Tiles`.
        down: Packed [E, hidden, inner].
        offsets: [E + 1].
        experts: E.

    Raises:
        As `enqueue_grouped_matmul`.
    """
    if activations.rows == 0 or experts == 0:
        return
    var between = Activations.in_expert_order(
        rebind[ConstPointer[DType.bfloat16]](inner.y), activations.rows, inner.n // 2
    )
    # Sizes without products are left to the separate launches.
    if activations.k > 0 and inner.n > 0:
        _check(activations, experts)
        _check(between, experts)
        var config = choose_config(activations.rows, experts)
        if config == DECODE_8:
            if _enqueue_mlp[MLP_8](
                ctx, output, inner, stored, activations, gate_up, down, offsets, experts
            ):
                return
        elif config == DECODE_16:
            if _enqueue_mlp[MLP_16](
                ctx, output, inner, stored, activations, gate_up, down, offsets, experts
            ):
                return
    enqueue_grouped_matmul(ctx, inner, activations, gate_up, offsets, experts, overlapping=True)
    enqueue_grouped_matmul(ctx, output, between, down, offsets, experts, overlapping=True)


def _enqueue_mlp[
    config: Sm90Config
](
    ctx: DeviceContext,
    output: Output[gated=False],
    inner: Output[gated=True],
    stored: Counts,
    activations: Activations,
    gate_up: ConstPointer[DType.uint8],
    down: ConstPointer[DType.uint8],
    offsets: ConstPointer[DType.int32],
    experts: Int,
) raises -> Bool:
    """Launches both matmuls as one kernel, unless the device has no room for its blocks side by side.

    Blocks wait for each other, so the whole grid must be resident at once. That cannot be seen from here where other
    blocks keep their place for as long as these wait: such a kernel of another stream, or of another process, if MPS
    lets both run on the same multiprocessors.

    Returns:
        Whether it was launched.
    """
    var rows = activations.rows
    # The kernel numbers the items of both matmuls consecutively.
    _check_items(
        config.most_items_listed(rows, experts, inner.n)
        + config.most_items_listed(rows, experts, output.n)
    )
    var kernel = ctx.compile_function[grouped_mlp_kernel[config]](
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(UInt32(config.shared_bytes()))
    )
    var resident = kernel.occupancy_max_active_blocks_per_multiprocessor(
        config.threads(), config.shared_bytes()
    )
    if resident < config.blocks:
        return False
    var items = config.most_items(rows, experts, inner.n) + config.most_items(
        rows, experts, output.n
    )
    var multiprocessors = Int(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT))
    var attributes = overlap_attributes(ctx)
    # As many are resident as could be only if the first-level cache has no part of what these blocks need. A hint: the
    # driver need not take it.
    attributes.append(
        LaunchAttribute(
            LaunchAttributeID.PREFERRED_SHARED_MEMORY_CARVEOUT,
            LaunchAttributeValue(UInt32(_ALL_SHARED)),
        )
    )
    ctx.enqueue_function(
        kernel,
        output.y,
        inner.y,
        stored,
        activations.x,
        gate_up,
        inner.bias,
        down,
        output.bias,
        offsets,
        activations.order,
        Int32(rows),
        Int32(experts),
        Int32(activations.k),
        Int32(inner.n // 2),
        Int32(activations.top_k),
        inner.limit,
        grid_dim=min(items, multiprocessors * config.blocks),
        block_dim=config.threads(),
        shared_mem_bytes=config.shared_bytes(),
        attributes=attributes^,
    )
    return True
