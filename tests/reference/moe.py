"""The mixture of experts: route each token, group rows by expert, multiply, weigh and sum.

Source: the model as gpt-oss's model card (arXiv 2508.10925, section 2) and its published reference
code (github.com/openai/gpt-oss, gpt_oss/torch/model.py) define it. Every function here is the twin of
one op and takes the same arrays in the same layout:

    ids, weights = route(router_logits, top_k)
    order, places, offsets = group(ids, num_experts)      # rows of one expert become neighbours
    h = grouped_matmul_swiglu(x, *gate_up, offsets, order)
    y = grouped_matmul(h, *down, offsets)
    out = combine(y, places, weights)

T tokens, E experts, k experts per token (top_k), P = T * k routed rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.dense import Activations, round_activations
from tests.reference.mxfp4 import dequantize

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

SWIGLU_ALPHA = 1.702
"""The sigmoid's factor, a constant of the model: x * sigmoid(1.702 x) approximates GELU."""


class ExpertWeights(NamedTuple):
    """One projection of all experts, as the checkpoint stores it."""

    blocks: NDArray[np.uint8]
    """[E, N, K/32, 16], packed codes."""
    scales: NDArray[np.uint8]
    """[E, N, K/32], E8M0."""
    bias: NDArray[np.floating]
    """[E, N]."""


def route(logits: ArrayLike, top_k: int) -> tuple[Int32, Float64]:
    """The top_k experts of each token, and the softmax over those alone.

    Args:
        logits: [T, E] floats.
        top_k: experts per token.

    Returns:
        expert_ids [T, k] int32, the largest logit first, equal logits in the order of their ids;
        weights [T, k] float64, each row summing to 1.
    """
    logits = np.asarray(logits, np.float64)
    expert_ids = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(logits, expert_ids, axis=-1)
    weights = np.exp(chosen - chosen.max(axis=-1, keepdims=True))
    return expert_ids.astype(np.int32), weights / weights.sum(axis=-1, keepdims=True)


def group(expert_ids: ArrayLike, num_experts: int) -> tuple[Int32, Int32, Int32]:
    """Routed rows sorted by expert; rows of one expert keep their order (the sort is stable).

    Args:
        expert_ids: [T, k] integers.
        num_experts: E.

    Returns:
        row_order [P] int32: row p of the grouped matrices is flat index ``t * k + j``, token t's
        j-th choice; row_places [T, k] int32: where that row stands; expert_offsets [E + 1] int32:
        expert e owns rows offsets[e] to offsets[e + 1].

    Example:
        ``group([[2, 0], [0, 2]], 3)`` is ``([1, 2, 0, 3], [[2, 0], [1, 3]], [0, 2, 2, 4])``.
    """
    expert_ids = np.asarray(expert_ids)
    flat = expert_ids.reshape(-1)
    row_order = np.argsort(flat, kind="stable").astype(np.int32)
    row_places = np.empty_like(row_order)
    row_places[row_order] = np.arange(flat.size)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=num_experts))])
    return row_order, row_places.reshape(expert_ids.shape), offsets.astype(np.int32)


def swiglu(gate_up: ArrayLike, limit: float) -> Float64:
    """``(up + 1) * gate * sigmoid(1.702 * gate)`` of clamped, interleaved gate and up.

    The gate is clamped above only, the up part on both sides.

    Args:
        gate_up: [..., 2I] floats: gate at even places, up at odd ones.
        limit: the clamp, `swiglu_limit` of the config.

    Returns:
        [..., I] float64.
    """
    gate_up = np.asarray(gate_up, np.float64)
    gate = np.minimum(gate_up[..., 0::2], limit)
    up = np.clip(gate_up[..., 1::2], -limit, limit)
    with np.errstate(over="ignore"):  # a very negative gate: exp is inf and the sigmoid 0
        sigmoid = 1 / (1 + np.exp(-SWIGLU_ALPHA * gate))
    return (up + 1) * gate * sigmoid


def grouped_matmul(
    x: ArrayLike,
    weights: ExpertWeights,
    expert_offsets: Int32,
    activations: Activations = "float32",
) -> Float64:
    """``y[p] = x[p] @ W[e].T + bias[e]`` for the expert e that owns row p.

    Args:
        x: [P, K] floats, rows grouped by expert.
        weights: of E experts, N outputs.
        expert_offsets: [E + 1], from `group`.
        activations: what x is rounded to first.

    Returns:
        [P, N] float64.
    """
    x = round_activations(x, activations)
    num_experts, n = weights.bias.shape
    y = np.empty((x.shape[0], n))
    for e in range(num_experts):
        rows = slice(expert_offsets[e], expert_offsets[e + 1])
        if rows.start < rows.stop:
            w = dequantize(weights.blocks[e], weights.scales[e])
            y[rows] = x[rows] @ w.T + weights.bias[e]
    return y


def grouped_matmul_swiglu(
    x: ArrayLike,
    weights: ExpertWeights,
    expert_offsets: Int32,
    row_order: Int32,
    limit: float,
    activations: Activations = "float32",
) -> Float64:
    """``swiglu(x[t] @ W[e].T + bias[e])`` for each routed row, gathering its token t itself.

    Args:
        x: [T, K] floats, rows in token order.
        weights: of E experts, N = 2I outputs, gate and up interleaved.
        expert_offsets: [E + 1], from `group`.
        row_order: [P], from `group`.
        limit: the clamp of `swiglu`.
        activations: what x is rounded to first; the result is not rounded.

    Returns:
        [P, I] float64, rows grouped by expert.
    """
    x = np.asarray(x, np.float64)
    top_k = row_order.size // max(x.shape[0], 1)
    gathered = x[row_order // max(top_k, 1)]
    return swiglu(grouped_matmul(gathered, weights, expert_offsets, activations), limit)


def combine(y: ArrayLike, row_places: Int32, weights: ArrayLike) -> Float64:
    """``out[t] = sum over j of weights[t, j] * y[row_places[t, j]]``.

    Args:
        y: [P, H] floats, rows grouped by expert.
        row_places: [T, k], from `group`.
        weights: [T, k] floats, from `route`.

    Returns:
        [T, H] float64.
    """
    y = np.asarray(y, np.float64)
    return np.einsum("tk,tkh->th", np.asarray(weights, np.float64), y[row_places])


def experts(
    x: ArrayLike,
    expert_ids: Int32,
    routing_weights: ArrayLike,
    gate_up: ExpertWeights,
    down: ExpertWeights,
    limit: float,
    activations: Activations = "float32",
) -> Float64:
    """The experts' part of a layer: grouped, multiplied, weighed and summed.

    Args:
        x: [T, H] floats.
        expert_ids: [T, k], from `route`.
        routing_weights: [T, k], from `route`.
        gate_up: K = H, N = 2I.
        down: K = I, N = H.
        limit: the clamp of `swiglu`.
        activations: what the input of both multiplications is rounded to.

    Returns:
        [T, H] float64.
    """
    row_order, row_places, expert_offsets = group(expert_ids, gate_up.bias.shape[0])
    h = grouped_matmul_swiglu(x, gate_up, expert_offsets, row_order, limit, activations)
    y = grouped_matmul(h, down, expert_offsets, activations)
    return combine(y, row_places, routing_weights)
