"""gpt-oss straight from the tensors of the ``original/`` layout, as OpenAI's own code computes it.

Written after gpt_oss/torch/model.py and weights.py of github.com/openai/gpt-oss, function by function, and by no
other part of these tests: that another layout means the same is shown by the logits of both. Float64 throughout.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.mxfp4 import dequantize

Float64 = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


def forward(config: Mapping[str, Any], weights: Weights, token_ids: ArrayLike) -> Float64:
    """Logits of the next token at every position.

    Args:
        config: original/config.json.
        weights: by name: BF16 as floats, U8 as uint8.
        token_ids: [T] integers.

    Returns:
        [T, vocabulary] float64.
    """
    x = weights["embedding.weight"][np.asarray(token_ids)].astype(np.float64)
    for i in range(config["num_hidden_layers"]):
        prefix = f"block.{i}."
        block = {
            name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)
        }
        x = x + attention_block(config, block, x, config["sliding_window"] if i % 2 == 0 else 0)
        x = x + mlp_block(config, block, x)
    return rms_norm(x, weights["norm.scale"]) @ weights["unembedding.weight"].T.astype(np.float64)


def rms_norm(x: Float64, scale: ArrayLike) -> Float64:
    return np.asarray(scale, np.float64) * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)


def attention_block(config: Mapping[str, Any], block: Weights, x: Float64, window: int) -> Float64:
    """Rows of qkv: all queries, then all keys, then all values; a query head's group is its key's neighbours."""
    heads, groups, size = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
    )
    tokens = x.shape[0]
    qkv = rms_norm(x, block["attn.norm.scale"]) @ block["attn.qkv.weight"].T.astype(np.float64)
    qkv = qkv + block["attn.qkv.bias"]
    q, k, v = np.split(qkv, [heads * size, (heads + groups) * size], axis=1)
    q = rotary(config, q.reshape(tokens, groups, heads // groups, size))
    k = rotary(config, k.reshape(tokens, groups, 1, size))[:, :, 0]
    v = v.reshape(tokens, groups, size)

    scores = np.einsum("qhmd,khd->hmqk", q, k) / math.sqrt(size)
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    unseen = (distance < 0) | (distance >= window if window else False)
    scores = np.where(unseen, -np.inf, scores)
    sinks = np.broadcast_to(
        block["attn.sinks"].astype(np.float64).reshape(groups, -1, 1, 1), (*scores.shape[:3], 1)
    )
    scores = np.concatenate([scores, sinks], axis=-1)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = (shares / shares.sum(axis=-1, keepdims=True))[..., :-1]
    mixed = np.einsum("hmqk,khd->qhmd", shares, v).reshape(tokens, -1)
    return mixed @ block["attn.out.weight"].T.astype(np.float64) + block["attn.out.bias"]


def rotary(config: Mapping[str, Any], x: Float64) -> Float64:
    """Turns a head's first half against its second, [T, groups, heads of a group, D]."""
    size, base, factor = config["head_dim"], config["rope_theta"], config["rope_scaling_factor"]
    frequency = base ** (np.arange(0, size, 2) / size)

    def dimension(rotations: float) -> float:
        turns = config["initial_context_length"] / (rotations * 2 * math.pi)
        return size / 2 * math.log(turns) / math.log(base)

    low, high = dimension(config["rope_ntk_beta"]), dimension(config["rope_ntk_alpha"])
    ramp = np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
    inverse = ramp / (factor * frequency) + (1 - ramp) / frequency
    angles = (np.arange(x.shape[0])[:, None] * inverse)[:, None, None]
    concentration = 0.1 * math.log(factor) + 1
    cos, sin = concentration * np.cos(angles), concentration * np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def mlp_block(config: Mapping[str, Any], block: Weights, x: Float64) -> Float64:
    """The chosen experts' sum for each token, one token at a time."""
    t = rms_norm(x, block["mlp.norm.scale"])
    scores = t @ block["mlp.gate.weight"].T.astype(np.float64) + block["mlp.gate.bias"]
    w1 = dequantize(block["mlp.mlp1_weight.blocks"], block["mlp.mlp1_weight.scales"])
    w2 = dequantize(block["mlp.mlp2_weight.blocks"], block["mlp.mlp2_weight.scales"])
    limit = config["swiglu_limit"]
    out = np.zeros_like(x)
    for token, row in enumerate(t):
        chosen = np.argsort(-scores[token], kind="stable")[: config["experts_per_token"]]
        share = np.exp(scores[token, chosen] - scores[token, chosen].max())
        for expert, weight in zip(chosen, share / share.sum(), strict=True):
            h = w1[expert] @ row + block["mlp.mlp1_bias"][expert]
            gate, up = np.minimum(h[0::2], limit), np.clip(h[1::2], -limit, limit)
            h = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
            out[token] += weight * (w2[expert] @ h + block["mlp.mlp2_bias"][expert])
    return out
