"""Models of the demo's architecture that a test can train, decode or write in an instant."""

from __future__ import annotations

from typing import Any

import torch

from demo.architecture import make_config, make_model

SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 16,
}
"""What is smaller than in the demo; the window is shorter than any prompt."""


def tiny_config(tokenizer: Any) -> Any:
    """The demo's config but for `SIZES`."""
    config = make_config(tokenizer)
    for name, value in SIZES.items():
        setattr(config, name, value)
    return config


def tiny_model(tokenizer: Any, *, seed: int = 0) -> Any:
    """A model as training starts with it: what it adds to the residual stream, and its logits, are zeros."""
    return make_model(tiny_config(tokenizer), seed)


def random_model(tokenizer: Any, *, seed: int = 0) -> Any:
    """A model all of whose weights are random, so that every part of it matters; its experts are rounded."""
    model = tiny_model(tokenizer, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim == 1 or "bias" in name or "embed" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(
                    2 * noise / parameter.shape[-2 if parameter.ndim == 3 else -1] ** 0.5
                )
    return model
