"""Attention: rotary positions stretched by YaRN, sinks, a sliding window, grouped heads.

Source: YaRN, arXiv 2309.00071, section 3 and appendix A (frequencies, the factor 0.1 ln(s) + 1);
sinks and window: gpt-oss's model card, arXiv 2508.10925, section 2, and its published reference code
(github.com/openai/gpt-oss, gpt_oss/torch/model.py).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.bfloat16 import round_to_bfloat16

Float64 = NDArray[np.float64]


def yarn_frequencies(rope: Mapping[str, Any], head_dim: int) -> tuple[Float64, float]:
    """Angle per position of each pair of dimensions, and what cos and sin are multiplied by.

    Plain RoPE turns pair i by ``theta^(-2i / head_dim)`` per position. YaRN leaves pairs that turn
    more than beta_fast times within the original context as they are, slows those that turn less
    than beta_slow times by `factor`, and blends in between, linearly in i.

    Args:
        rope: `rope_theta`, `factor`, `original_max_position_embeddings`; `beta_fast` (32),
            `beta_slow` (1), `truncate` (True) and `attention_factor` where present.
        head_dim: even.

    Returns:
        frequencies [head_dim / 2] float64 in radians per position; the attention factor,
        0.1 ln(factor) + 1 unless given.
    """
    theta, factor = rope["rope_theta"], rope["factor"]

    def pair_that_turns(rotations: float) -> float:
        """Fractional i whose pair turns so often within the original context."""
        wavelength = rope["original_max_position_embeddings"] / rotations
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(rope.get("beta_fast", 32.0))
    high = pair_that_turns(rope.get("beta_slow", 1.0))
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)

    pair = np.arange(head_dim // 2)
    plain = theta ** (-2.0 * pair / head_dim)
    slowed = np.clip((pair - low) / max(high - low, 0.001), 0, 1)  # 0: as it is, 1: slowed
    frequencies = plain * (1 - slowed) + plain / factor * slowed

    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    return frequencies, attention_factor


def rotate(
    x: ArrayLike, positions: ArrayLike, frequencies: Float64, attention_factor: float
) -> Float64:
    """Turn each pair ``(x[i], x[i + D/2])`` by its angle and stretch it by the attention factor.

    The pairs are the two halves of the head, not neighbours. Both q and k are stretched, so scores
    grow by the square of the factor.

    Args:
        x: [T, heads, D] floats.
        positions: [T] integers.
        frequencies: [D / 2], from `yarn_frequencies`.
        attention_factor: from `yarn_frequencies`.

    Returns:
        [T, heads, D] float64.
    """
    first, second = np.split(np.asarray(x, np.float64), 2, axis=-1)
    angles = np.asarray(positions)[:, None, None] * frequencies
    cos, sin = attention_factor * np.cos(angles), attention_factor * np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    sinks: ArrayLike,
    window: int | None = None,
    *,
    rounded: bool = False,
) -> Float64:
    """``softmax([q k^T / sqrt(D), sink]) v``: causal, the sink's share of the softmax dropped.

    Query head h reads key-value head ``h // (heads / kv_heads)``. Position t sees itself and the
    ``window - 1`` positions before it, or all before it.

    Args:
        q: [T, heads, D] floats, already rotated.
        k: [T, kv_heads, D] floats, already rotated.
        v: [T, kv_heads, D] floats.
        sinks: [heads] floats: one learned logit per query head, not divided by sqrt(D).
        window: positions that a query sees, itself included; None for all.
        rounded: whether both products take bfloat16: q, k, v, and exponentials as shares of the largest; their sum is
            of what they were.

    Returns:
        [T, heads, D] float64.
    """
    q, k, v = (round_to_bfloat16(a) if rounded else np.asarray(a, np.float64) for a in (q, k, v))
    tokens, heads, head_dim = q.shape
    kv_heads = k.shape[1]
    # Heads in front, so that one product per position serves all heads: query heads are
    # [kv_heads, heads per kv head], keys and values [kv_heads, position, D].
    q = q.reshape(tokens, kv_heads, -1, head_dim)
    k, v = k.swapaxes(0, 1), v.swapaxes(0, 1)
    sink = np.asarray(sinks, np.float64).reshape(kv_heads, -1, 1)

    out = np.empty_like(q)
    for t in range(tokens):
        seen = slice(0 if window is None else max(0, t - window + 1), t + 1)
        scores = q[t] @ k[:, seen].swapaxes(1, 2) / math.sqrt(head_dim)
        largest = np.maximum(scores.max(axis=-1, keepdims=True), sink)
        exps = np.exp(scores - largest)
        total = exps.sum(axis=-1, keepdims=True) + np.exp(sink - largest)
        weights = round_to_bfloat16(exps) if rounded else exps
        out[t] = weights @ v[:, seen] / total
    return out.reshape(tokens, heads, head_dim)
