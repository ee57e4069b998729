"""Attention with sinks through torch's fused kernel, which knows none."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PAD = 8
"""Added to the head's dimension, of which the sink takes one; a whole SIMD register."""


def sink_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """``softmax([sink, scaling * q @ k.T])[1:] @ v``, causal, over all keys or the last ``sliding_window``.

    The sink is one more key, before the others, with a value of zero. It has length only in a dimension of
    its own, where every query is 1: its logit is then the same number for every query.

    Args:
        module: transformers' attention layer; gives ``sinks`` [H] and ``num_key_value_groups``.
        query: [B, H, T, D].
        key: [B, H / groups, T, D].
        value: as ``key``.
        attention_mask: unused: sequences are padded on the right, where no query sees.
        scaling: of the logits.
        dropout: unused.
        sliding_window: keys that a query sees, itself among them; all if None.

    Returns:
        [B, T, H, D], and nothing.
    """
    batch, heads, tokens, head_dim = query.shape
    groups = module.num_key_value_groups
    ones = query.new_ones(batch, heads, tokens, 1)
    query = F.pad(torch.cat([query, ones], -1), (0, PAD - 1))
    key = F.pad(key.repeat_interleave(groups, 1), (0, PAD))
    value = F.pad(value.repeat_interleave(groups, 1), (0, PAD, 1, 0))
    sink = F.pad((module.sinks / scaling).view(1, -1, 1, 1), (head_dim, PAD - 1))
    key = torch.cat([sink.expand(batch, -1, -1, -1), key], 2)
    query_idx = torch.arange(tokens)[:, None]
    key_idx = torch.arange(-1, tokens)[None]
    seen = key_idx <= query_idx
    if sliding_window is not None:
        seen &= (key_idx > query_idx - sliding_window) | (key_idx < 0)
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    return output[..., :head_dim].transpose(1, 2).contiguous(), None
