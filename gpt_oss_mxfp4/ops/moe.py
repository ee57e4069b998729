"""Ops that send tokens to experts and back."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Dim, StaticDim, TensorType, TensorValue, TensorValueLike, ops

from gpt_oss_mxfp4.ops.checks import activation_dtype, common_device, require, require_dim


def route(logits: TensorValueLike, top_k: int) -> tuple[TensorValue, TensorValue]:
    """Picks each token's experts: top-k of the router logits, then softmax over those k alone.

    Args:
        logits: [T, E] float32.
        top_k: experts per token, 1 <= top_k <= E.

    Returns:
        expert ids [T, k] int32 in descending order of logit, ties to the lower id; weights [T, k] float32,
        each row summing to 1.

    Raises:
        ValueError: wrong rank or dtype, or top_k out of range; at run time, on a GPU, more than 512 experts, or more
            than 32 of a token.

    Source: openai/gpt-oss ``torch/model.py`` MLPBlock; transformers ``GptOssTopKRouter``.
    """
    op = "moe.route"
    logits = _check_logits(op, logits, top_k)
    ids, weights = ops.custom(op, logits.device, [logits], _routed(logits, top_k))
    return ids.tensor, weights.tensor


def group(
    expert_ids: TensorValueLike, num_experts: int
) -> tuple[TensorValue, TensorValue, TensorValue, TensorValue]:
    """Sorts routed rows by expert, stably: equal inputs give equal bits, whatever else is in the batch.

    Args:
        expert_ids: [T, k] int32, each in 0..num_experts-1.
        num_experts: E.

    Returns:
        row order [P] int32, ``row_order[p] = t * k + j`` of the p-th row in expert order; row places [T, k] int32, the
        way back, ``row_places[t, j] = p``; expert offsets [E + 1] int32, rows of expert e are
        ``offsets[e] <= p < offsets[e + 1]``; counts [E] int32, zeros, in which one :func:`grouped_mlp_packed` counts.

    Raises:
        ValueError: wrong rank or dtype, or no experts; at run time, on the CPU, an id out of range. On a GPU such a row
            gets the place -1 and no expert, and :func:`combine` leaves it out.
    """
    op = "moe.group"
    expert_ids = TensorValue(expert_ids)
    device = expert_ids.device
    require(op, "expert_ids", expert_ids, 2, DType.int32)
    if num_experts < 1:
        raise ValueError(f"{op}: num_experts must be at least 1, got {num_experts}")
    tokens, top_k = expert_ids.shape
    order, places, offsets, counts = ops.custom(
        op, device, [expert_ids], _grouped(tokens, top_k, Dim(num_experts), device)
    )
    return order.tensor, places.tensor, offsets.tensor, counts.tensor


def route_and_group(logits: TensorValueLike, top_k: int) -> tuple[TensorValue, ...]:
    """Routes as :func:`route` does, then sorts as :func:`group` does: on a GPU one kernel where there are few tokens.

    Args:
        logits: [T, E] float32.
        top_k: experts per token, 1 <= top_k <= E.

    Returns:
        What those two give, without the expert ids: weights [T, k] float32, row order [P] int32, row places [T, k]
        int32, expert offsets [E + 1] int32, counts [E] int32.

    Raises:
        ValueError: as :func:`route`.
    """
    op = "moe.route_and_group"
    logits = _check_logits(op, logits, top_k)
    tokens, experts = logits.shape
    grouped = _grouped(tokens, Dim(top_k), experts, logits.device)
    _, *results = ops.custom(op, logits.device, [logits], [*_routed(logits, top_k), *grouped])
    return tuple(result.tensor for result in results)


def _check_logits(op: str, logits: TensorValueLike, top_k: int) -> TensorValue:
    logits = TensorValue(logits)
    require(op, "logits", logits, 2, DType.float32)
    experts = logits.shape[1]
    if top_k < 1 or (isinstance(experts, StaticDim) and top_k > int(experts)):
        raise ValueError(
            f"{op}: top_k must be between 1 and the number of experts = {experts}, got {top_k}"
        )
    return logits


def _routed(logits: TensorValue, top_k: int) -> list[TensorType]:
    """Expert ids and weights."""
    shape = [logits.shape[0], top_k]
    return [TensorType(dtype, shape, logits.device) for dtype in (DType.int32, DType.float32)]


def _grouped(tokens: Dim, top_k: Dim, experts: Dim, device: DeviceRef) -> list[TensorType]:
    """Row order and places, offsets and counts of experts."""
    shapes: list[list[Dim]] = [[tokens * top_k], [tokens, top_k], [experts + 1], [experts]]
    return [TensorType(DType.int32, shape, device) for shape in shapes]


def combine(
    y: TensorValueLike,
    row_places: TensorValueLike,
    weights: TensorValueLike,
    residual: TensorValueLike,
) -> TensorValue:
    """Sums each token's experts: ``out[t] = residual[t] + sum_j weights[t, j] * y[row_places[t, j]]``.

    Args:
        y: [P, H] float32 on a CPU, bfloat16 on a GPU, rows sorted by expert.
        row_places: [T, k] int32, from :func:`group`.
        weights: [T, k] float32, from :func:`route`.
        residual: [T, H] of y's dtype.

    Returns:
        [T, H] of y's dtype, summed in float32 and rounded once; the sum runs over j upwards, the residual last, so a
        token's result does not depend on its batch.

    Raises:
        ValueError: wrong rank or dtype; at run time, on the CPU, a place outside of 0..P-1, or on a GPU, where such
            a row is left out, a result of 2^31 elements or more.
    """
    op = "moe.combine"
    y, row_places, weights, residual = (
        TensorValue(value) for value in (y, row_places, weights, residual)
    )
    device = common_device(op, y, row_places, weights, residual)
    require(op, "y", y, 2, activation_dtype(device))
    require(op, "row_places", row_places, 2, DType.int32)
    require(op, "weights", weights, 2, DType.float32)
    require(op, "residual", residual, 2, y.dtype)
    require_dim(op, "residual.shape[0]", residual.shape[0], "weights.shape[0]", weights.shape[0])
    require_dim(op, "residual.shape[1]", residual.shape[1], "y.shape[1]", y.shape[1])
    for axis in range(2):
        require_dim(
            op,
            f"row_places.shape[{axis}]",
            row_places.shape[axis],
            f"weights.shape[{axis}]",
            weights.shape[axis],
        )
    return ops.custom(
        op,
        device,
        [y, row_places, weights, residual],
        [TensorType(y.dtype, residual.shape, device)],
    )[0].tensor
