"""config.json of both layouts, and what OpenAI's cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.layout import QUANTIZATION_CONFIG
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.convert.configs import (
    from_original_config,
    same_model,
    to_original_config,
    with_experts,
)
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields
from tests.gpt_oss_mxfp4.convert.folders import original_config
from tests.gpt_oss_mxfp4.test_config import GPT_OSS_20B

HERE = Path("config.json")

PUBLISHED = {
    "num_hidden_layers": 24,
    "num_experts": 32,
    "experts_per_token": 4,
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "swiglu_limit": 7.0,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "initial_context_length": 4096,
    "rope_theta": 150000,
    "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1.0,
    "rope_ntk_beta": 32.0,
}
"""Fields of OpenAI's ModelConfig with the values of gpt-oss-20b."""


def test_the_published_sizes_come_through() -> None:
    config = GptOssConfig.from_dict(from_original_config(PUBLISHED, HERE))
    assert (config.num_local_experts, config.num_experts_per_tok, config.head_dim) == (32, 4, 64)
    assert config.max_position_embeddings == 131072
    assert config.layer_types[:2] == ("sliding_attention", "full_attention")
    assert (config.rope.beta_fast, config.rope.beta_slow, config.rope.truncate) == (32, 1, False)
    assert to_original_config(config, HERE) == PUBLISHED


def test_what_is_made_is_what_is_published_but_for_token_ids() -> None:
    made = from_original_config(PUBLISHED, HERE)
    assert made.pop("quantization_config") == QUANTIZATION_CONFIG
    assert made == {key: GPT_OSS_20B[key] for key in made}
    assert set(GPT_OSS_20B) - set(made) == {
        "attention_dropout",
        "eos_token_id",
        "experts_per_token",
        "pad_token_id",
        "quantization_config",
    }


def test_the_length_is_the_nearest_whole_number() -> None:
    fields = {**PUBLISHED, "initial_context_length": 100, "rope_scaling_factor": 1.15}
    assert (
        from_original_config(fields, HERE)["max_position_embeddings"] == 115
    )  # 114.99999999999999


def test_the_clamp_may_be_left_out_as_openai_s_code_has_it() -> None:
    fields = {key: value for key, value in PUBLISHED.items() if key != "swiglu_limit"}
    assert GptOssConfig.from_dict(from_original_config(fields, HERE)).swiglu_limit == 7.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"layer_types": ["full_attention"] * 2},
            "layer_types must be ('sliding_attention', 'full_attention') in the original layout,",
        ),
        (
            {"max_position_embeddings": 4096},
            "max_position_embeddings must be 131072 in the original layout, got 4096",
        ),
        (
            {"rope_scaling": {**config_fields()["rope_scaling"], "truncate": True}},
            "truncate must be false in the original layout, got true",
        ),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps must be 1e-05 in the original layout, got 1e-06"),
        (
            {"rope_scaling": {**config_fields()["rope_scaling"], "attention_factor": 1.0}},
            "attention_factor must be 1.3465735902799727 in the original layout, got 1.0",
        ),
    ],
)
def test_what_the_original_layout_cannot_say_is_refused(
    change: dict[str, Any], message: str
) -> None:
    config = GptOssConfig.from_dict(config_fields(**change))
    with pytest.raises(CheckpointError) as error:
        to_original_config(config, HERE)
    assert message in str(error.value)


def test_a_config_of_another_model_is_not_taken_for_it() -> None:
    config = GptOssConfig.from_dict(from_original_config(original_config(), HERE))
    assert same_model(config_fields(eos_token_id=3), config)
    assert same_model(config_fields(tie_word_embeddings=True), config)
    assert not same_model(config_fields(swiglu_limit=6.0), config)
    assert not same_model(config_fields(rope_theta=10000), config)
    assert not same_model({}, config)


def test_only_what_is_said_of_quantization_changes() -> None:
    fields = config_fields(quantization_config={"quant_method": "quark"}, torch_dtype="bfloat16")
    packed = with_experts(fields, packed=True)
    assert packed == {**fields, "quantization_config": QUANTIZATION_CONFIG}
    assert with_experts(packed, packed=True) == packed
    plain = with_experts(packed, packed=False)
    assert "quantization_config" not in plain
    assert len(plain) == len(fields) - 1
