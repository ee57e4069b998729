"""The experts of a layer on rows sorted by expert: one gather and one scatter for all experts together."""

from typing import Any

import torch
from torch import Tensor


def sorted_experts(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """``sum over the chosen experts of weight * (act(x @ W1[e] + b1[e]) @ W2[e] + b2[e])``.

    Args:
        self: transformers' experts, whose activation and weights are used.
        hidden_states: [T, H].
        top_k_index: expert ids, [T, k].
        top_k_weights: [T, k].

    Returns:
        [T, H].
    """
    experts, order = top_k_index.flatten().sort(stable=True)
    rows = order // top_k_index.shape[-1]
    counts = torch.bincount(experts, minlength=self.num_experts).tolist()
    gate_up_proj, down_proj = self.gate_up_proj, self.down_proj
    outputs = []
    for e, x in enumerate(hidden_states.index_select(0, rows).split(counts)):
        gate_up = torch.addmm(self.gate_up_proj_bias[e], x, gate_up_proj[e])
        outputs.append(torch.addmm(self.down_proj_bias[e], self._apply_gate(gate_up), down_proj[e]))
    weighted = torch.cat(outputs) * top_k_weights.flatten().index_select(0, order)[:, None]
    return torch.zeros_like(hidden_states).index_add_(0, rows, weighted)
