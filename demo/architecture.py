"""The demo model: gpt-oss's own architecture, small, set up to be trained on a CPU."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AttentionInterface, AttentionMaskInterface, GptOssConfig, GptOssForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from demo.attention import sink_attention
from demo.experts import sorted_experts
from demo.fake_quantize import StraightThroughMXFP4

EXPERT_WEIGHTS = ("gate_up_proj", "down_proj")
"""What a checkpoint holds in MXFP4."""

AttentionInterface.register("sink_attention", sink_attention)
AttentionMaskInterface.register("sink_attention", lambda *_, **__: None)  # it masks by itself
ALL_EXPERTS_FUNCTIONS.register("sorted_experts", sorted_experts)


def make_config(tokenizer: Any) -> GptOssConfig:
    """Gives the sizes: gpt-oss's own where they cost nothing, small elsewhere.

    Args:
        tokenizer: from `make_tokenizer`; gives the vocabulary and the ids that end an answer.
    """
    ids = tokenizer.convert_tokens_to_ids
    return GptOssConfig(
        num_hidden_layers=4,  # sliding, full, sliding, full
        hidden_size=256,
        intermediate_size=128,
        num_local_experts=8,
        num_experts_per_tok=4,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=128,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ids(["<|return|>", "<|call|>"]),
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model(config: GptOssConfig, seed: int) -> GptOssForCausalLM:
    """Makes a float32 model to be trained, whose experts are rounded to MXFP4 in every forward pass.

    What writes to the residual stream starts at zero, so that each layer starts as the identity.

    Args:
        config: from `make_config`.
        seed: of the random weights.
    """
    torch.manual_seed(seed)
    model = GptOssForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "layernorm.weight")):
            nn.init.ones_(parameter)
        elif name.endswith(("bias", "sinks", "o_proj.weight", "down_proj", "lm_head.weight")):
            nn.init.zeros_(parameter)
        elif name.endswith("embed_tokens.weight"):
            nn.init.normal_(parameter, std=0.5)
        else:
            fan_in = parameter.shape[-2 if name.endswith("gate_up_proj") else -1]
            nn.init.normal_(parameter, std=1 / math.sqrt(fan_in))
    model.set_attn_implementation("sink_attention")
    model.set_experts_implementation("sorted_experts")
    for layer in model.model.layers:
        for name in EXPERT_WEIGHTS:
            parametrize.register_parametrization(layer.mlp.experts, name, StraightThroughMXFP4())
    return model


def remove_rounding(model: GptOssForCausalLM, *, keep_rounded: bool) -> None:
    """Turns a trained model into a plain one.

    Args:
        model: from `make_model`.
        keep_rounded: whether its experts stay as rounded, or go back to what was trained behind that.
    """
    for layer in model.model.layers:
        for name in EXPERT_WEIGHTS:
            parametrize.remove_parametrizations(
                layer.mlp.experts, name, leave_parametrized=keep_rounded
            )
    # Attention in training knows neither a cache nor padding on the left.
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
