"""config.json: both rope spellings, defaults, and the exact refusal of each bad field."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.config import FULL, SLIDING, GptOssConfig
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields

# The fields of the published config.json of openai/gpt-oss-20b that bear on anything here.
GPT_OSS_20B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "layer_types": [SLIDING, FULL] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}

CURE = "Compare it with the config.json of openai/gpt-oss-20b."


def refusal(**changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        GptOssConfig.from_dict(config_fields(**changes))
    return str(caught.value)


def rope(**changes: Any) -> dict[str, Any]:
    fields = {**GPT_OSS_20B["rope_scaling"], **changes}
    return {key: value for key, value in fields.items() if value is not None}


def test_gpt_oss_20b_as_published() -> None:
    config = GptOssConfig.from_dict(GPT_OSS_20B)
    assert config.head_dim == 64 != config.hidden_size // config.num_attention_heads
    assert (config.num_hidden_layers, config.num_local_experts, config.num_experts_per_tok) == (
        24,
        32,
        4,
    )
    assert config.layer_types[:2] == (SLIDING, FULL)
    assert config.swiglu_limit == 7.0
    assert config.eos_token_ids == (200002,)
    assert config.rope.theta == 150000.0
    assert config.rope.truncate is False
    assert config.rope.attention_factor == 0.1 * math.log(32.0) + 1.0


def test_experts_are_of_both_sizes() -> None:
    config = GptOssConfig.from_dict(config_fields(hidden_size=96, intermediate_size=32))
    assert config.expert_shapes == ((64, 96), (96, 32))


def test_spelling_of_transformers_5_gives_the_same_config() -> None:
    fields = dict(GPT_OSS_20B)
    theta, scaling = fields.pop("rope_theta"), fields.pop("rope_scaling")
    fields["rope_parameters"] = {**scaling, "rope_theta": float(theta)}
    assert GptOssConfig.from_dict(fields) == GptOssConfig.from_dict(GPT_OSS_20B)


def test_both_spellings_at_once_are_read_where_they_agree() -> None:
    inside = {**GPT_OSS_20B["rope_scaling"], "rope_theta": 150000.0}
    fields = {**GPT_OSS_20B, "rope_parameters": inside}
    assert GptOssConfig.from_dict(fields) == GptOssConfig.from_dict(GPT_OSS_20B)


def test_null_reads_as_absent() -> None:
    fields = {**GPT_OSS_20B, "rope_parameters": None, "layer_types": None}
    assert GptOssConfig.from_dict(fields) == GptOssConfig.from_dict(GPT_OSS_20B)


def test_layer_types_default_to_alternation_that_starts_with_sliding() -> None:
    assert GptOssConfig.from_dict(config_fields(num_hidden_layers=3)).layer_types == (
        SLIDING,
        FULL,
        SLIDING,
    )


def test_what_transformers_leaves_out_has_its_defaults() -> None:
    bare = rope(beta_fast=None, beta_slow=None, truncate=None)
    config = GptOssConfig.from_dict(config_fields(swiglu_limit=None, rope_scaling=bare))
    assert config.swiglu_limit == 7.0
    assert (config.rope.beta_fast, config.rope.beta_slow, config.rope.truncate) == (32.0, 1.0, True)
    assert config.tie_word_embeddings is False
    assert config.eos_token_ids == ()


def test_given_attention_factor_is_taken() -> None:
    config = GptOssConfig.from_dict(config_fields(rope_scaling=rope(attention_factor=1.5)))
    assert config.rope.attention_factor == 1.5


def test_factor_one_is_plain_rope() -> None:
    config = GptOssConfig.from_dict(config_fields(rope_scaling=rope(factor=1.0)))
    assert config.rope.attention_factor == 1.0


def test_several_eos_tokens() -> None:
    assert GptOssConfig.from_dict(config_fields(eos_token_id=[2, 1])).eos_token_ids == (2, 1)


def test_quantization_config_may_be_absent() -> None:
    GptOssConfig.from_dict(config_fields(quantization_config=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": None}, "head_dim must be an integer from 1 to 4096, got nothing"),
        ({"head_dim": 7}, "head_dim must be even, got 7: RoPE rotates pairs"),
        ({"vocab_size": 0}, "vocab_size must be an integer from 1 to 16777216, got 0"),
        ({"vocab_size": True}, "vocab_size must be an integer from 1 to 16777216, got true"),
        ({"vocab_size": 16.0}, "vocab_size must be an integer from 1 to 16777216, got 16.0"),
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers must be an integer from 1 to 1024, got 1000000000",
        ),
        (
            {"num_hidden_layers": 10**400},
            f"num_hidden_layers must be an integer from 1 to 1024, got 1{'0' * 119}..."
            " (401 characters)",
        ),
        (
            {"sliding_window": "\x1b[31m"},
            "sliding_window must be an integer from 1 to 2147483647, got '\\x1b[31m'",
        ),
        (
            {"max_position_embeddings": 2**22 + 1},
            "max_position_embeddings must be an integer from 1 to 4194304, got 4194305",
        ),
        (
            {"rms_norm_eps": float("nan")},
            "rms_norm_eps must be a number above 0 and at most 1e+30, got nan",
        ),
        (
            {"swiglu_limit": 10**400},
            f"swiglu_limit must be a number above 0 and at most 1e+30, got 1{'0' * 119}..."
            " (401 characters)",
        ),
        (
            {"hidden_act": "gelu"},
            'hidden_act must be "silu", got "gelu": the experts have no other activation',
        ),
        (
            {"attention_bias": False},
            "attention_bias must be true, got false: the graph adds the biases of q, k, v and o",
        ),
        (
            {"model_type": "llama"},
            'model_type must be "gpt_oss", got "llama": the graph is that of gpt-oss',
        ),
        (
            {"swiglu_alpha": 1.5},
            "swiglu_alpha must be 1.702, got 1.5: the kernels hold it as a constant",
        ),
        (
            {"tie_word_embeddings": "no"},
            'tie_word_embeddings must be true or false, got "no"',
        ),
        ({"quantization_config": "mxfp4"}, 'quantization_config must be an object, got "mxfp4"'),
        (
            {"layer_types": ["full_attention"]},
            "layer_types must have num_hidden_layers = 2 items, got 1",
        ),
        (
            {"layer_types": ["full_attention", "linear_attention"]},
            "layer_types must be a list of sliding_attention and full_attention,"
            " got ['full_attention', 'linear_attention']",
        ),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads must be a multiple of num_key_value_heads = 3, got 4",
        ),
        (
            {"num_experts_per_tok": 3},
            "num_experts_per_tok must be at most num_local_experts = 2, got 3",
        ),
        (
            {"eos_token_id": -1},
            "eos_token_id must be a token id, a list of them or null, got -1",
        ),
        ({"eos_token_id": [1, 16]}, "eos_token_id must be below vocab_size = 16, got 16"),
        (
            {"rope_scaling": None},
            "rope_parameters (or rope_scaling) must be an object, got nothing",
        ),
        (
            {"rope_scaling": "yarn"},
            'rope_parameters (or rope_scaling) must be an object, got "yarn"',
        ),
        (
            {"rope_scaling": rope(rope_type="linear")},
            'rope_type must be "yarn", got "linear": the graph has no other',
        ),
        (
            {"rope_scaling": rope(mscale=0.7)},
            "mscale must be left out, got 0.7: the graph has no such term",
        ),
        (
            {"rope_scaling": rope(mscale_all_dim=1.0)},
            "mscale_all_dim must be left out, got 1.0: the graph has no such term",
        ),
        (
            {"rope_scaling": rope(partial_rotary_factor=0.5)},
            "partial_rotary_factor must be 1.0, got 0.5: the graph turns the whole head",
        ),
        (
            {"rope_scaling": rope(beta_fast=1.0)},
            "rope must have rope_theta > 1, factor >= 1 and beta_fast > beta_slow,"
            " got 150000, 32, 1 and 1",
        ),
        (
            {"rope_theta": 1},  # of which YaRN divides by the logarithm
            "rope must have rope_theta > 1, factor >= 1 and beta_fast > beta_slow,"
            " got 1, 32, 32 and 1",
        ),
        (
            {"rope_scaling": rope(factor=0.5)},
            "rope must have rope_theta > 1, factor >= 1 and beta_fast > beta_slow,"
            " got 150000, 0.5, 32 and 1",
        ),
        (
            {"rope_theta": None},
            "rope_theta must be a number above 0 and at most 1e+30, got nothing",
        ),
        (
            {"rope_scaling": rope(rope_theta=10000)},
            "rope_theta must be one number, got 150000 and 10000",
        ),
        (
            {"rope_parameters": rope(factor=8.0)},
            "rope_parameters and rope_scaling must be equal where both are given",
        ),
    ],
)
def test_bad_field_is_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == f"config.json: {message}. {CURE}"


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size"])
def test_reduced_axis_that_is_no_multiple_of_32_is_refused(key: str) -> None:
    assert refusal(**{key: 80}) == (
        f"config.json: {key} must be a multiple of 32, got 80: one MXFP4 scale covers 32 elements."
        " MXFP4 weights of such a size cannot exist: take the config that belongs to them."
    )


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({"quant_method": "bitsandbytes"}, '"bitsandbytes"'),
        ({"load_in_4bit": True}, "nothing"),
    ],
)
def test_unknown_quant_method_is_refused(given: Any, method: str) -> None:
    assert refusal(quantization_config=given) == (
        f'config.json: quantization_config.quant_method must be "mxfp4", got {method}: this package'
        " runs no other format. Use openai/gpt-oss-20b, openai/gpt-oss-120b or another repository"
        " with MXFP4 experts."
    )


@pytest.mark.parametrize("method", ["quark", "compressed-tensors"])
def test_what_convert_takes_is_told_how(method: str) -> None:
    assert refusal(quantization_config={"quant_method": method}) == (
        f'config.json: quantization_config.quant_method must be "mxfp4", got "{method}": this package'
        " runs no other format. Convert it: gpt-oss-mxfp4 convert FOLDER --output NEW_FOLDER"
        " (one on the Hub after `hf download REPOSITORY --local-dir FOLDER`)."
    )


def test_all_faults_come_in_one_sorted_message() -> None:
    assert refusal(vocab_size=0, head_dim=None) == (
        "config.json: 2 faults\n"
        "bad config (2):\n"
        "  head_dim must be an integer from 1 to 4096, got nothing\n"
        "  vocab_size must be an integer from 1 to 16777216, got 0\n"
        f"  cure: {CURE}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "must be a JSON object, got a list"),
        (b"null", "must be a JSON object, got null"),
        (b'{"a": 1, "a": 2}', "holds the key a twice"),
        (b'{"rope_scaling": {"a": 1, "a": 2}}', "holds the key a twice"),
        (b'{"rms_norm_eps": NaN}', "holds NaN, which is not JSON"),
        (b'{"unknown": [-1e999]}', "holds -1e999, which is too large"),
        (b'{"a" 1}', "is not valid JSON (Expecting ':' delimiter: line 1 column 6 (char 5))"),
        (b"", "is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[" * 100_000, "is nested too deeply to be one of ours"),
        (b" " * (8 * 2**20 + 1), "must be at most 8388608 bytes of JSON, is larger"),
    ],
)
def test_config_file_that_is_no_strict_json_object_is_refused(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError) as caught:
        GptOssConfig.from_file(path)
    cure = "Download the file again from the repository it came from"
    assert str(caught.value) == f"{path}: {message}. {cure}."


def test_config_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GPT_OSS_20B))
    assert GptOssConfig.from_file(path) == GptOssConfig.from_dict(GPT_OSS_20B)


def test_checkpoint_reader_imports_neither_max_nor_torch_nor_the_hub() -> None:
    program = (
        "import sys, gpt_oss_mxfp4.checkpoint.hub\n"
        "print([m for m in ('max', 'torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
