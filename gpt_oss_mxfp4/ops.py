"""Typed bindings of the Mojo ops: the only file of the package that names one.

Each function checks what the graph knows (ranks, dtypes, static sizes), states the equation, and adds one
custom op to the graph under construction. Graphs that use them pass ``custom_extensions=[CUSTOM_OPS]``.

Sizes: T tokens, k experts per token, P = T * k routed rows, E experts, K reduced axis, N outputs of a weight
matrix, I intermediate size, H hidden size. Routed rows are sorted by expert; rows of one expert are contiguous.
"""

from __future__ import annotations

import math
from pathlib import Path

from max.dtype import DType
from max.graph import DeviceRef, Dim, StaticDim, TensorType, TensorValue, TensorValueLike, ops
from max.nn.kv_cache import PagedCacheValues

from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE
from gpt_oss_mxfp4.options import Activations


def _locate_custom_ops() -> Path:
    """Mojo sources: beside this package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        if (path := root / "custom_ops" / "mxfp4").is_dir():
            return path
    raise FileNotFoundError(
        f"gpt_oss_mxfp4: custom_ops/mxfp4 must lie in or beside {package}; reinstall the package"
    )


CUSTOM_OPS = _locate_custom_ops()


def _cpu_only(op: str, *values: TensorValue) -> DeviceRef:
    """Returns the common device of an op's inputs, which has to be the CPU for now."""
    devices = {value.device for value in values}
    if len(devices) != 1:
        raise ValueError(f"{op}: inputs must lie on one device, got {sorted(map(str, devices))}")
    (device,) = devices
    if not device.is_cpu():
        raise ValueError(
            f"{op}: has no GPU kernel yet, got inputs on {device}; run with --devices cpu"
        )
    return device


def _require(op: str, name: str, value: TensorValue, rank: int, *dtypes: DType) -> None:
    if value.rank != rank:
        raise ValueError(f"{op}: {name} must have rank {rank}, got shape {value.shape}")
    if value.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{op}: {name} must be {wanted}, got {value.dtype}")


def _require_dim(op: str, what: str, got: Dim, rule: str, want: Dim | int) -> None:
    """Compares two sizes where both are known while the graph is built; kernels check the rest."""
    want = Dim(want)
    if isinstance(got, StaticDim) and isinstance(want, StaticDim) and got != want:
        raise ValueError(f"{op}: {what} must be {rule} = {want}, got {got}")


def _tensor(value: TensorValueLike) -> TensorValue:
    return TensorValue(value)


def dequantize(
    blocks: TensorValueLike, scales: TensorValueLike, dtype: DType = DType.float32
) -> TensorValue:
    """Expands MXFP4 to floats: ``y[..., 32g + i] = e2m1(code_i of group g) * 2^(scales[..., g] - 127)``.

    Args:
        blocks: [N, K/32, 16] or [E, N, K/32, 16] uint8, two E2M1 codes a byte, earlier element in the low nibble.
        scales: the same without the last axis, uint8 E8M0; 255 is NaN.
        dtype: float32 or bfloat16; both are exact below their overflow to infinity.

    Returns:
        [..., K] of ``dtype`` on the inputs' device.

    Raises:
        ValueError: wrong rank, dtype, group size, or a GPU device (no kernel yet).

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.2, 5.3.3 and 6.3.
    """
    op = "mxfp4.dequantize"
    blocks, scales = _tensor(blocks), _tensor(scales)
    device = _cpu_only(op, blocks, scales)
    if blocks.rank not in (3, 4):
        raise ValueError(f"{op}: blocks must have rank 3 or 4, got shape {blocks.shape}")
    _require(op, "blocks", blocks, blocks.rank, DType.uint8)
    _require(op, "scales", scales, blocks.rank - 1, DType.uint8)
    _require_dim(op, "blocks.shape[-1]", blocks.shape[-1], "the bytes of a group", BYTES_PER_GROUP)
    if dtype not in (DType.float32, DType.bfloat16):
        raise ValueError(f"{op}: dtype must be float32 or bfloat16, got {dtype}")
    *outer, k_groups = scales.shape
    flat_blocks = blocks.reshape([-1, k_groups, BYTES_PER_GROUP])
    flat_scales = scales.reshape([-1, k_groups])
    rows = flat_scales.shape[0]
    flat = ops.custom(
        op,
        device,
        [flat_blocks, flat_scales],
        [TensorType(dtype, [rows, k_groups * GROUP_SIZE], device)],
    )[0].tensor
    return flat.reshape([*outer, k_groups * GROUP_SIZE])


def quantize(x: TensorValueLike) -> tuple[TensorValue, TensorValue]:
    """Rounds floats to MXFP4: ``code[..., 32g + i] = e2m1(x[..., 32g + i] / 2^(scales[..., g] - 127))``.

    ``scales[..., g] = clamp(floor(log2(amax of group g)) - 2, -127, 127) + 127``; ``e2m1`` rounds to nearest, ties to
    the even code, and saturates at 6. Zeros keep their sign.

    Args:
        x: [..., K] float32 or bfloat16 on the CPU, at least one axis, K a multiple of 32.

    Returns:
        blocks [..., K/32, 16] uint8, two E2M1 codes a byte, earlier element in the low nibble; scales [..., K/32]
        uint8 E8M0. A group of zeros has scale 0. One with a NaN or an infinity has scale 255 and codes 0: all of it
        is NaN.

    Raises:
        ValueError: wrong rank or dtype, a K that is no multiple of 32 (at run time where K is symbolic), or a GPU
            device (no kernel yet).

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 and 6.3.

    Example:
        The scale is never raised to avoid saturation: a group whose largest element is 7.5 has scale 127 (2^0), and
        7.5 becomes 6.
    """
    op = "mxfp4.quantize"
    x = _tensor(x)
    device = _cpu_only(op, x)
    if x.rank < 1:
        raise ValueError(f"{op}: x must have rank 1 or more, got shape {x.shape}")
    _require(op, "x", x, x.rank, DType.float32, DType.bfloat16)
    *outer, k = x.shape
    if isinstance(k, StaticDim) and int(k) % GROUP_SIZE != 0:
        raise ValueError(f"{op}: x.shape[-1] must be a multiple of {GROUP_SIZE}, got {k}")
    rows, k_groups = math.prod(outer, start=Dim(1)), k // GROUP_SIZE
    blocks, scales = ops.custom(
        op,
        device,
        [x.reshape([rows, k])],
        [
            TensorType(DType.uint8, [rows, k_groups, BYTES_PER_GROUP], device),
            TensorType(DType.uint8, [rows, k_groups], device),
        ],
    )
    return (
        blocks.tensor.reshape([*outer, k_groups, BYTES_PER_GROUP]),
        scales.tensor.reshape([*outer, k_groups]),
    )


def route(logits: TensorValueLike, top_k: int) -> tuple[TensorValue, TensorValue]:
    """Picks each token's experts: top-k of the router logits, then softmax over those k alone.

    Args:
        logits: [T, E] float32.
        top_k: experts per token, 1 <= top_k <= E.

    Returns:
        expert ids [T, k] int32 in descending order of logit, ties to the lower id; weights [T, k] float32,
        each row summing to 1.

    Raises:
        ValueError: wrong rank, dtype, top_k out of range, or a GPU device (no kernel yet).

    Source: openai/gpt-oss ``torch/model.py`` MLPBlock; transformers ``GptOssTopKRouter``.
    """
    op = "moe.route"
    logits = _tensor(logits)
    device = _cpu_only(op, logits)
    _require(op, "logits", logits, 2, DType.float32)
    tokens, experts = logits.shape
    if top_k < 1 or (isinstance(experts, StaticDim) and top_k > int(experts)):
        raise ValueError(
            f"{op}: top_k must be between 1 and the number of experts = {experts}, got {top_k}"
        )
    ids, weights = ops.custom(
        op,
        device,
        [logits],
        [
            TensorType(DType.int32, [tokens, top_k], device),
            TensorType(DType.float32, [tokens, top_k], device),
        ],
    )
    return ids.tensor, weights.tensor


def group(expert_ids: TensorValueLike, num_experts: int) -> tuple[TensorValue, TensorValue]:
    """Sorts routed rows by expert, stably: equal inputs give equal bits, whatever else is in the batch.

    Args:
        expert_ids: [T, k] int32, each in 0..num_experts-1.
        num_experts: E.

    Returns:
        row order [P] int32, ``row_order[p] = t * k + j`` of the p-th row in expert order; expert offsets
        [E + 1] int32, rows of expert e are ``offsets[e] <= p < offsets[e + 1]``.

    Raises:
        ValueError: wrong rank or dtype, or a GPU device (no kernel yet); at run time, an id out of range.
    """
    op = "moe.group"
    expert_ids = _tensor(expert_ids)
    device = _cpu_only(op, expert_ids)
    _require(op, "expert_ids", expert_ids, 2, DType.int32)
    tokens, top_k = expert_ids.shape
    order, offsets = ops.custom(
        op,
        device,
        [expert_ids],
        [
            TensorType(DType.int32, [tokens * top_k], device),
            TensorType(DType.int32, [num_experts + 1], device),
        ],
    )
    return order.tensor, offsets.tensor


def grouped_matmul(
    x: TensorValueLike,
    blocks: TensorValueLike,
    scales: TensorValueLike,
    bias: TensorValueLike,
    expert_offsets: TensorValueLike,
    activations: Activations = "bfloat16",
) -> TensorValue:
    """Multiplies each expert's rows by its MXFP4 weights: ``y[p] = x[p] @ W[e(p)].T + bias[e(p)]``.

    Args:
        x: [P, K] float32, rows sorted by expert.
        blocks: [E, N, K/32, 16] uint8, checkpoint layout.
        scales: [E, N, K/32] uint8 E8M0.
        bias: [E, N] bfloat16.
        expert_offsets: [E + 1] int32, from :func:`group`.
        activations: "bfloat16" rounds x to bf16 before multiplying, "float32" does not. Sums are float32 in both.

    Returns:
        [P, N] float32.

    Raises:
        ValueError: wrong rank, dtype or size, or a GPU device (no kernel yet); at run time, offsets that do
            not ascend from 0 to P.
    """
    op = "mxfp4.grouped_matmul"
    values = [_tensor(v) for v in (x, blocks, scales, bias, expert_offsets)]
    device = _check_grouped(op, *values)
    rows, n = values[0].shape[0], values[1].shape[1]
    return ops.custom(
        op,
        device,
        values,
        [TensorType(DType.float32, [rows, n], device)],
        parameters={"activations": _activation_dtype(op, activations)},
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
        x: [T, K] float32, in token order.
        blocks: [E, 2I, K/32, 16] uint8, gate and up rows interleaved, checkpoint layout.
        scales: [E, 2I, K/32] uint8 E8M0.
        bias: [E, 2I] bfloat16.
        expert_offsets: [E + 1] int32, from :func:`group`.
        row_order: [P] int32, from :func:`group`; P is a multiple k of T.
        limit: ``swiglu_limit`` of the config.
        activations: as in :func:`grouped_matmul`.

    Returns:
        [P, I] float32, rows sorted by expert.

    Raises:
        ValueError: as :func:`grouped_matmul`; at run time also a row order that leaves 0..P-1.

    Source: openai/gpt-oss ``torch/model.py`` swiglu.
    """
    op = "mxfp4.grouped_matmul_swiglu"
    values = [_tensor(v) for v in (x, blocks, scales, bias, expert_offsets)]
    device = _check_grouped(op, *values)
    row_order = _tensor(row_order)
    _require(op, "row_order", row_order, 1, DType.int32)
    if not limit > 0:
        raise ValueError(f"{op}: limit must be positive, got {limit}")
    limit_value = ops.constant(limit, DType.float32, device=DeviceRef.CPU())
    n = values[1].shape[1]
    return ops.custom(
        op,
        device,
        [*values, row_order, limit_value],
        [TensorType(DType.float32, [row_order.shape[0], n // 2], device)],
        parameters={"activations": _activation_dtype(op, activations)},
    )[0].tensor


def combine(
    y: TensorValueLike, row_order: TensorValueLike, weights: TensorValueLike
) -> TensorValue:
    """Sums each token's experts: ``out[t] = sum_j weights[t, j] * y[p]`` with ``row_order[p] = t * k + j``.

    Args:
        y: [P, H] float32, rows sorted by expert.
        row_order: [P] int32, from :func:`group`.
        weights: [T, k] float32, from :func:`route`.

    Returns:
        [T, H] float32; the sum runs over j upwards, so a token's result does not depend on its batch.

    Raises:
        ValueError: wrong rank or dtype, or a GPU device (no kernel yet); at run time, a row order that is
            not a permutation of 0..P-1.
    """
    op = "moe.combine"
    y, row_order, weights = _tensor(y), _tensor(row_order), _tensor(weights)
    device = _cpu_only(op, y, row_order, weights)
    _require(op, "y", y, 2, DType.float32)
    _require(op, "row_order", row_order, 1, DType.int32)
    _require(op, "weights", weights, 2, DType.float32)
    return ops.custom(
        op,
        device,
        [y, row_order, weights],
        [TensorType(DType.float32, [weights.shape[0], y.shape[1]], device)],
    )[0].tensor


def attention(
    q: TensorValueLike,
    cache: PagedCacheValues,
    cache_layer: TensorValueLike,
    row_offsets: TensorValueLike,
    sinks: TensorValueLike,
    window: int | None = None,
) -> TensorValue:
    """Attends within each sequence: ``out[t] = softmax([q[t] @ K.T / sqrt(D), sink])[:-1] @ V``, causal.

    MAX's own CPU kernel counts the sink once per 128 keys instead of once, so this one stands in for it.

    Args:
        q: [T, heads, D] float32, rotated, a ragged batch.
        cache: MAX's paged cache; holds the batch's keys and values already. Read, not written.
        cache_layer: scalar uint32 on the CPU, the layer's place in that cache.
        row_offsets: [B + 1] uint32, where each sequence begins in q.
        sinks: [heads] float32, one logit per query head.
        window: positions a query sees, itself included; None for all.

    Returns:
        [T, heads, D] float32.

    Raises:
        ValueError: wrong rank or dtype, or a GPU device (MAX's attention serves those); at run time, a page size
            or D that is no multiple of 64.

    Source: openai/gpt-oss ``torch/model.py`` sdpa.
    """
    op = "attention.paged"
    q, row_offsets, sinks = _tensor(q), _tensor(row_offsets), _tensor(sinks)
    device = _cpu_only(op, q, row_offsets, sinks)
    _require(op, "q", q, 3, DType.float32)
    _require(op, "row_offsets", row_offsets, 1, DType.uint32)
    _require(op, "sinks", sinks, 1, DType.float32)
    _require_dim(op, "sinks.shape[0]", sinks.shape[0], "q.shape[1]", q.shape[1])
    scale = 1 / math.sqrt(int(q.shape[2]))
    return ops.inplace_custom(
        op,
        device,
        [
            q,
            row_offsets,
            sinks,
            cache.kv_blocks,
            cache.page_stride,
            cache.cache_lengths,
            cache.lookup_table,
            _tensor(cache_layer),
            ops.constant(scale, DType.float32, device=DeviceRef.CPU()),
            ops.constant(window or 0, DType.int32, device=DeviceRef.CPU()),
        ],
        [q.type],
    )[0].tensor


def dense(
    x: TensorValueLike, w: TensorValueLike, bias: TensorValueLike | None = None
) -> TensorValue:
    """Multiplies by BF16 weights that stay BF16 in memory: ``y = x @ w.T + bias``.

    Args:
        x: [T, K] float32 on the CPU, bfloat16 on a GPU.
        w: [N, K] bfloat16.
        bias: [N] bfloat16, or None.

    Returns:
        [T, N] of x's dtype. On the CPU products are exact in float32 and summed in float32.

    Raises:
        ValueError: wrong rank, dtype or size.
    """
    op = "dense.matmul"
    x, w = _tensor(x), _tensor(w)
    values = [x, w] if bias is None else [x, w, _tensor(bias)]
    _require(op, "w", w, 2, DType.bfloat16)
    _require_dim(op, "w.shape[1]", w.shape[1], "x.shape[1]", x.shape[1])
    if bias is not None:
        _require(op, "bias", values[2], 1, DType.bfloat16)
        _require_dim(op, "bias.shape[0]", values[2].shape[0], "w.shape[0]", w.shape[0])
    if not x.device.is_cpu():  # MAX's own GPU matmul takes BF16 as it is
        _require(op, "x", x, 2, DType.bfloat16)
        y = x @ w.transpose(0, 1)
        return y if bias is None else y + values[2]
    device = _cpu_only(op, *values)
    _require(op, "x", x, 2, DType.float32)
    return ops.custom(
        op if bias is None else "dense.matmul_bias",
        device,
        values,
        [TensorType(DType.float32, [x.shape[0], w.shape[0]], device)],
    )[0].tensor


def _activation_dtype(op: str, activations: str) -> DType:
    if activations not in ("bfloat16", "float32"):
        raise ValueError(f'{op}: activations must be "bfloat16" or "float32", got "{activations}"')
    return DType.bfloat16 if activations == "bfloat16" else DType.float32


def _check_grouped(
    op: str,
    x: TensorValue,
    blocks: TensorValue,
    scales: TensorValue,
    bias: TensorValue,
    offsets: TensorValue,
) -> DeviceRef:
    """Checks the inputs that both grouped matmuls share and returns their device."""
    device = _cpu_only(op, x, blocks, scales, bias, offsets)
    _require(op, "x", x, 2, DType.float32)
    _require(op, "blocks", blocks, 4, DType.uint8)
    _require(op, "scales", scales, 3, DType.uint8)
    _require(op, "bias", bias, 2, DType.bfloat16)
    _require(op, "expert_offsets", offsets, 1, DType.int32)
    experts, n, k_groups, group_bytes = blocks.shape
    _require_dim(op, "blocks.shape[3]", group_bytes, "the bytes of a group", BYTES_PER_GROUP)
    _require_dim(op, "x.shape[1]", x.shape[1], "32 * blocks.shape[2]", k_groups * GROUP_SIZE)
    for axis, want in enumerate((experts, n, k_groups)):
        _require_dim(op, f"scales.shape[{axis}]", scales.shape[axis], f"blocks.shape[{axis}]", want)
    for axis, want in enumerate((experts, n)):
        _require_dim(op, f"bias.shape[{axis}]", bias.shape[axis], f"blocks.shape[{axis}]", want)
    _require_dim(
        op, "expert_offsets.shape[0]", offsets.shape[0], "blocks.shape[0] + 1", experts + 1
    )
    return device
