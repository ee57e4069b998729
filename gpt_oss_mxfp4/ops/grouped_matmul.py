"""Grouped matmuls: each expert's rows by its MXFP4 weights."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Dim, StaticDim, TensorType, TensorValue, TensorValueLike, ops

from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE, MAX_PACKED_EXPERTS
from gpt_oss_mxfp4.ops.checks import (
    activation_dtype,
    activation_parameter,
    common_device,
    require,
    require_dim,
)
from gpt_oss_mxfp4.ops.mxfp4 import packed_shape
from gpt_oss_mxfp4.options import Activations


def grouped_matmul(
    x: TensorValueLike,
    blocks: TensorValueLike,
    scales: TensorValueLike,
    bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    activations: Activations = "bfloat16",
) -> TensorValue:
    """Multiplies each expert's rows by its MXFP4 weights: ``y[p] = x[p] @ W[e(p)].T + bias[e(p)]``.

    On a GPU this is the reference, correct and slow: see :func:`grouped_matmul_packed`.

    Args:
        x: [P, K] float32 on a CPU, bfloat16 on a GPU, rows sorted by expert.
        blocks: [E, N, K/32, 16] uint8, checkpoint layout.
        scales: [E, N, K/32] uint8 E8M0.
        bias: [E, N] bfloat16.
        expert_offsets: [E + 1] int32, from :func:`group`.
        activations: what x is rounded to first on a CPU: "bfloat16", "float32" not at all, or "int8" with a scale
            ``amax / 127`` for each 32 elements. Products are exact and sums float32 in all three. On a GPU x is
            bfloat16 to begin with.

    Returns:
        [P, N] of x's dtype.

    Raises:
        ValueError: wrong rank, dtype or size, or inputs on several devices; at run time, on the CPU, offsets that do
            not ascend from 0 to P. On a GPU rows that they leave out are not written.
    """
    op = "mxfp4.grouped_matmul"
    x, blocks, scales, bias, expert_offsets = _check(op, x, blocks, scales, bias, expert_offsets)
    return ops.custom(
        op,
        x.device,
        [x, blocks, scales, bias, expert_offsets],
        [TensorType(x.dtype, [x.shape[0], blocks.shape[1]], x.device)],
        parameters={"activations": activation_parameter(op, activations)},
    )[0].tensor


def grouped_matmul_swiglu(
    x: TensorValueLike,
    blocks: TensorValueLike,
    scales: TensorValueLike,
    bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    row_order: TensorValueLike,
    limit: float,
    activations: Activations = "bfloat16",
) -> TensorValue:
    """The experts' first half: gathers rows, multiplies, clamps and gates, all in one op.

    ``u = x[row_order[p] // k] @ W[e].T + bias[e]``; ``gate = min(u[0::2], limit)``;
    ``up = clamp(u[1::2], -limit, limit)``; ``y[p] = (up + 1) * gate * sigmoid(1.702 * gate)``.

    Args:
        x: [T, K] float32 on a CPU, bfloat16 on a GPU, in token order.
        blocks: [E, 2I, K/32, 16] uint8, gate and up rows interleaved, checkpoint layout.
        scales: [E, 2I, K/32] uint8 E8M0.
        bias: [E, 2I] bfloat16.
        expert_offsets: [E + 1] int32, from :func:`group`.
        row_order: [P] int32, from :func:`group`; P is a multiple k of T.
        limit: ``swiglu_limit`` of the config.
        activations: as in :func:`grouped_matmul`.

    Returns:
        [P, I] of x's dtype, rows sorted by expert.

    Raises:
        ValueError: as :func:`grouped_matmul`; at run time, on the CPU, also a row order that leaves 0..P-1.

    Source: openai/gpt-oss ``torch/model.py`` swiglu.
    """
    op = "mxfp4.grouped_matmul_swiglu"
    x, blocks, scales, bias, expert_offsets = _check(op, x, blocks, scales, bias, expert_offsets)
    row_order = _check_swiglu(op, x, row_order, limit)
    return ops.custom(
        op,
        x.device,
        [x, blocks, scales, bias, expert_offsets, row_order, _limit(limit)],
        [TensorType(x.dtype, [row_order.shape[0], blocks.shape[1] // 2], x.device)],
        parameters={"activations": activation_parameter(op, activations)},
    )[0].tensor


def grouped_matmul_packed(
    x: TensorValueLike,
    tiles: TensorValueLike,
    bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    *,
    x_follows_offsets: bool = False,
) -> TensorValue:
    """Multiplies as :func:`grouped_matmul` does, on a Hopper GPU's tensor cores straight from packed weights.

    Args:
        x: [P, K] bfloat16 on a GPU, rows sorted by expert; K a multiple of 32.
        tiles: [E, ceil(N / 64), ceil(K / 64), 2176] uint8, from :func:`swizzle`.
        bias: [E, N] bfloat16, N even.
        expert_offsets: [E + 1] int32, from :func:`group`; rows that they leave out are not written.
        x_follows_offsets: whether x comes straight from :func:`grouped_matmul_swiglu_packed` with the same offsets, and
            ``tiles`` and ``bias`` are weights: the kernel then reads offsets and tiles while that op still runs.

    Returns:
        [P, N] bfloat16. Products are exact, sums float32, and equal runs give equal bits.

    Raises:
        ValueError: wrong rank, dtype or size, more than 510 experts (at run time where E is symbolic), or inputs on a
            CPU or on several devices.
    """
    op = "mxfp4.grouped_matmul_packed"
    x, tiles, bias, expert_offsets = _check_packed(op, x, tiles, bias, expert_offsets)
    return ops.custom(
        op,
        x.device,
        [x, tiles, bias, expert_offsets],
        [TensorType(x.dtype, [x.shape[0], bias.shape[1]], x.device)],
        parameters={"x_follows_offsets": x_follows_offsets},
    )[0].tensor


def grouped_matmul_swiglu_packed(
    x: TensorValueLike,
    tiles: TensorValueLike,
    bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    row_order: TensorValueLike,
    limit: float,
) -> TensorValue:
    """The experts' first half as :func:`grouped_matmul_swiglu` computes it, on a Hopper GPU from packed weights.

    Args:
        x: [T, K] bfloat16 on a GPU, in token order; K a multiple of 32.
        tiles: [E, ceil(2I / 64), ceil(K / 64), 2176] uint8, from :func:`swizzle`.
        bias: [E, 2I] bfloat16, gates and ups interleaved.
        expert_offsets: [E + 1] int32, from :func:`group`; rows that they leave out are not written.
        row_order: [P] int32, from :func:`group`; P is a multiple k of T. One outside of 0..P-1 takes a row of zeros.
        limit: ``swiglu_limit`` of the config.

    Returns:
        [P, I] bfloat16, rows sorted by expert.

    Raises:
        ValueError: as :func:`grouped_matmul_packed`.
    """
    op = "mxfp4.grouped_matmul_swiglu_packed"
    x, tiles, bias, expert_offsets = _check_packed(op, x, tiles, bias, expert_offsets)
    row_order = _check_swiglu(op, x, row_order, limit)
    return ops.custom(
        op,
        x.device,
        [x, tiles, bias, expert_offsets, row_order, _limit(limit)],
        [TensorType(x.dtype, [row_order.shape[0], bias.shape[1] // 2], x.device)],
    )[0].tensor


def grouped_mlp_packed(
    x: TensorValueLike,
    gate_up_tiles: TensorValueLike,
    gate_up_bias: TensorValueLike,
    down_tiles: TensorValueLike,
    down_bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    row_order: TensorValueLike,
    counts: TensorValueLike,
    limit: float,
) -> TensorValue:
    """Multiplies as :func:`grouped_matmul_swiglu_packed` and :func:`grouped_matmul_packed` do one behind the other.

    The bits are the same. Of few tokens one kernel does both, and loads the second's weights while the first's are
    multiplied. Its blocks wait for each other, so no other kernel of this op may run on the GPU at the same time.

    Args:
        x: [T, H] bfloat16 on a GPU, in token order; H a multiple of 32.
        gate_up_tiles: [E, ceil(2I / 64), ceil(H / 64), 2176] uint8, from :func:`swizzle`.
        gate_up_bias: [E, 2I] bfloat16, gates and ups interleaved; I a multiple of 32.
        down_tiles: [E, ceil(H / 64), ceil(I / 64), 2176] uint8, from :func:`swizzle`.
        down_bias: [E, H] bfloat16.
        expert_offsets: [E + 1] int32, from :func:`group`; rows that they leave out are not written.
        row_order: [P] int32, from :func:`group`; P is a multiple k of T. One outside of 0..P-1 takes a row of zeros.
        counts: [E] int32, from :func:`group`: zeros, for this op alone, as it counts in them. With others it reads what
            is not there yet, or never ends.
        limit: ``swiglu_limit`` of the config.

    Returns:
        [P, H] bfloat16, rows sorted by expert.

    Raises:
        ValueError: as :func:`grouped_matmul_packed`.
    """
    op = "mxfp4.grouped_mlp_packed"
    x, gate_up_tiles, gate_up_bias, expert_offsets = _check_packed(
        op,
        *(x, gate_up_tiles, gate_up_bias, expert_offsets),
        of="gate_up_",
        instead="mxfp4.grouped_matmul_swiglu and mxfp4.grouped_matmul",
    )
    row_order = _check_swiglu(op, x, row_order, limit)
    down_tiles, down_bias, counts = map(TensorValue, (down_tiles, down_bias, counts))
    common_device(op, x, down_tiles, down_bias, counts)
    require(op, "down_tiles", down_tiles, 4, DType.uint8)
    require(op, "down_bias", down_bias, 2, DType.bfloat16)
    require(op, "counts", counts, 1, DType.int32)
    (experts, two_inner), hidden = gate_up_bias.shape, x.shape[1]
    inner = two_inner // 2
    if isinstance(inner, StaticDim) and int(inner) % GROUP_SIZE != 0:
        raise ValueError(
            f"{op}: gate_up_bias.shape[1] / 2 must be a multiple of {GROUP_SIZE}, got {inner}"
        )
    for axis, (rule, want) in enumerate(
        (("gate_up_bias.shape[0]", experts), ("x.shape[1]", hidden))
    ):
        require_dim(op, f"down_bias.shape[{axis}]", down_bias.shape[axis], rule, want)
    shape: list[Dim] = [experts, *packed_shape(hidden, inner)]
    for axis, want in enumerate(shape):
        rule = "that of x and gate_up_bias, packed"
        require_dim(op, f"down_tiles.shape[{axis}]", down_tiles.shape[axis], rule, want)
    require_dim(op, "counts.shape[0]", counts.shape[0], "gate_up_bias.shape[0]", experts)
    rows = row_order.shape[0]
    return ops.custom(
        op,
        x.device,
        [
            *(x, gate_up_tiles, gate_up_bias, down_tiles, down_bias),
            *(expert_offsets, row_order, counts, _limit(limit)),
        ],
        [
            TensorType(x.dtype, [rows, hidden], x.device),
            TensorType(x.dtype, [rows, inner], x.device),
        ],
    )[0].tensor


def _limit(limit: float) -> TensorValue:
    return ops.constant(limit, DType.float32, device=DeviceRef.CPU())


def _check(op: str, *inputs: TensorValueLike) -> list[TensorValue]:
    """Checks what both grouped matmuls on the checkpoint's layout take: x, blocks, scales, bias, offsets."""
    values = [TensorValue(value) for value in inputs]
    x, blocks, scales, bias, offsets = values
    device = common_device(op, *values)
    require(op, "x", x, 2, activation_dtype(device))
    require(op, "blocks", blocks, 4, DType.uint8)
    require(op, "scales", scales, 3, DType.uint8)
    require(op, "bias", bias, 2, DType.bfloat16)
    require(op, "expert_offsets", offsets, 1, DType.int32)
    experts, n, k_groups, group_bytes = blocks.shape
    require_dim(op, "blocks.shape[3]", group_bytes, "the bytes of a group", BYTES_PER_GROUP)
    require_dim(op, "x.shape[1]", x.shape[1], "32 * blocks.shape[2]", k_groups * GROUP_SIZE)
    for axis, want in enumerate((experts, n, k_groups)):
        require_dim(op, f"scales.shape[{axis}]", scales.shape[axis], f"blocks.shape[{axis}]", want)
    for axis, want in enumerate((experts, n)):
        require_dim(op, f"bias.shape[{axis}]", bias.shape[axis], f"blocks.shape[{axis}]", want)
    require_dim(op, "expert_offsets.shape[0]", offsets.shape[0], "blocks.shape[0] + 1", experts + 1)
    return values


def _check_packed(
    op: str, *inputs: TensorValueLike, of: str = "", instead: str | None = None
) -> list[TensorValue]:
    """Checks what both grouped matmuls on packed weights take: x, tiles, bias, offsets.

    Args:
        op: the op's name.
        inputs: what it takes.
        of: what its names of tiles and bias begin with.
        instead: what takes weights that are not packed, if not the op whose name says so.
    """
    values = [TensorValue(value) for value in inputs]
    x, tiles, bias, offsets = values
    instead = instead or op.removesuffix("_packed")
    device = common_device(op, *values)
    if device.is_cpu():
        raise ValueError(
            f"{op}: takes weights packed for Hopper, got inputs on {device}; use {instead} there"
        )
    require(op, "x", x, 2, DType.bfloat16)
    require(op, f"{of}tiles", tiles, 4, DType.uint8)
    require(op, f"{of}bias", bias, 2, DType.bfloat16)
    require(op, "expert_offsets", offsets, 1, DType.int32)
    experts, n = bias.shape
    k = x.shape[1]
    if isinstance(k, StaticDim) and int(k) % GROUP_SIZE != 0:
        raise ValueError(f"{op}: x.shape[1] must be a multiple of {GROUP_SIZE}, got {k}")
    if isinstance(n, StaticDim) and int(n) % 2 != 0:
        raise ValueError(f"{op}: {of}bias.shape[1] must be even, got {n}")
    if isinstance(experts, StaticDim) and int(experts) > MAX_PACKED_EXPERTS:
        raise ValueError(
            f"{op}: {of}bias.shape[0] must be at most {MAX_PACKED_EXPERTS} experts, got {experts}; "
            f"use {instead}"
        )
    shape: list[Dim] = [experts, *packed_shape(n, k)]
    for axis, want in enumerate(shape):
        rule = f"that of {of}bias and x, packed"
        require_dim(op, f"{of}tiles.shape[{axis}]", tiles.shape[axis], rule, want)
    rule = f"{of}bias.shape[0] + 1"
    require_dim(op, "expert_offsets.shape[0]", offsets.shape[0], rule, experts + 1)
    return values


def _check_swiglu(op: str, x: TensorValue, row_order: TensorValueLike, limit: float) -> TensorValue:
    row_order = TensorValue(row_order)
    common_device(op, x, row_order)
    require(op, "row_order", row_order, 1, DType.int32)
    if not limit > 0:
        raise ValueError(f"{op}: limit must be positive, got {limit}")
    return row_order
