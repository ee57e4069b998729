"""config.json from one layout to another. What the other cannot say is refused, not left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.fields import Fields, shown
from gpt_oss_mxfp4.checkpoint.layout import QUANTIZATION_CONFIG
from gpt_oss_mxfp4.config import FULL, MAX_POSITIONS, SLIDING, GptOssConfig

_SAME = (
    "num_hidden_layers",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "swiglu_limit",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "sliding_window",
)
"""Fields that have one name in both."""

RMS_NORM_EPS = 1e-5
"""What OpenAI's implementation has as a constant."""

_ORIGINAL_CURE = "Compare it with original/config.json of openai/gpt-oss-20b"

MAX_ORIGINAL_LAYERS = 1024
"""Layers believed: the layer types are written out."""


def from_original_config(fields: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Writes a config.json of Hugging Face's layout from that of ``original/``.

    Args:
        fields: of original/config.json.
        where: what an error calls it.

    Raises:
        CheckpointError: a field is missing or absurd.

    Source: openai/gpt-oss ``ModelConfig`` and transformers' ``convert_gpt_oss_weights_to_hf.py``.
    """
    faults: list[Fault] = []
    reader = Fields(fields, _ORIGINAL_CURE, faults)
    layers = reader.size("num_hidden_layers", MAX_ORIGINAL_LAYERS)
    context = reader.size("initial_context_length", MAX_POSITIONS)
    factor = reader.number("rope_scaling_factor")
    rope = {
        "rope_type": "yarn",
        "factor": factor,
        "beta_fast": reader.number("rope_ntk_beta"),
        "beta_slow": reader.number("rope_ntk_alpha"),
        "original_max_position_embeddings": context,
        "truncate": False,
    }
    theta = reader.number("rope_theta")
    if faults:
        raise CheckpointError(where, faults)
    written = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        **{key: fields.get(key) for key in _SAME},
        "num_local_experts": fields.get("num_experts"),
        "num_experts_per_tok": fields.get("experts_per_token"),
        "layer_types": [FULL if layer % 2 else SLIDING for layer in range(layers)],
        "attention_bias": True,
        "hidden_act": "silu",
        "rms_norm_eps": RMS_NORM_EPS,
        "rope_theta": theta,
        "rope_scaling": rope,
        "initial_context_length": context,
        "max_position_embeddings": round(context * factor),
        "tie_word_embeddings": False,
        "quantization_config": QUANTIZATION_CONFIG,
    }
    return {key: value for key, value in written.items() if value is not None}


def to_original_config(config: GptOssConfig, where: Path) -> dict[str, Any]:
    """Writes original/config.json.

    Raises:
        CheckpointError: OpenAI's implementation would compute something else.
    """
    rope = config.rope
    alternating = tuple(FULL if i % 2 else SLIDING for i in range(config.num_hidden_layers))
    made = from_original_config(_original_fields(config), where)
    length = made["max_position_embeddings"]
    derived = GptOssConfig.from_dict(
        {**made, "max_position_embeddings": config.max_position_embeddings}
    )
    faults = []
    for name, got, wanted in (
        ("layer_types", config.layer_types, alternating),
        ("rms_norm_eps", config.rms_norm_eps, RMS_NORM_EPS),
        ("max_position_embeddings", config.max_position_embeddings, length),
        ("truncate", rope.truncate, False),
        ("attention_factor", rope.attention_factor, derived.rope.attention_factor),
    ):
        if got != wanted:
            text = f"{name} must be {shown(wanted)} in the original layout, got {shown(got)}"
            cure = "The original layout has no field for it: keep the checkpoint as it is"
            faults.append(Fault("no such field", text, cure))
    if faults:
        raise CheckpointError(where, faults)
    return _original_fields(config)


def same_model(fields: Mapping[str, Any], config: GptOssConfig) -> bool:
    """Whether a config.json says of the model all that ``config`` does, but for token ids and lengths."""
    try:
        other = GptOssConfig.from_dict(fields)
    except CheckpointError:
        return False
    ours, theirs = dict(vars(config)), dict(vars(other))
    for free in ("eos_token_ids", "max_position_embeddings", "tie_word_embeddings"):
        del ours[free], theirs[free]
    return ours == theirs


def with_experts(fields: Mapping[str, Any], *, packed: bool) -> dict[str, Any]:
    """A config.json of Hugging Face's layout for MXFP4 or for BF16 experts."""
    given = fields.get("quantization_config")
    if packed and isinstance(given, dict) and given.get("quant_method") == "mxfp4":
        return dict(fields)
    fields = {key: value for key, value in fields.items() if key != "quantization_config"}
    return {**fields, "quantization_config": QUANTIZATION_CONFIG} if packed else fields


def _original_fields(config: GptOssConfig) -> dict[str, Any]:
    rope = config.rope
    return {
        **{key: getattr(config, key) for key in _SAME},
        "num_experts": config.num_local_experts,
        "experts_per_token": config.num_experts_per_tok,
        "initial_context_length": rope.original_max_position_embeddings,
        "rope_theta": rope.theta,
        "rope_scaling_factor": rope.factor,
        "rope_ntk_alpha": rope.beta_slow,
        "rope_ntk_beta": rope.beta_fast,
    }
