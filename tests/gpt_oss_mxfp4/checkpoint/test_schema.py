"""The tensor table against the published shapes, and the exact text of each fault found by it."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.schema import (
    MAX_FAULTS,
    TensorSpec,
    check_tensors,
    expected_tensors,
)
from gpt_oss_mxfp4.config import GptOssConfig
from tests.gpt_oss_mxfp4.checkpoint.small import DTYPE_BYTES, Tensors, config_fields, small_tensors
from tests.gpt_oss_mxfp4.test_config import GPT_OSS_20B

# One layer of gpt-oss-20b, as the published files have it.
LAYER_20B: Tensors = {
    "input_layernorm.weight": ("BF16", (2880,)),
    "mlp.experts.down_proj_bias": ("BF16", (32, 2880)),
    "mlp.experts.down_proj_blocks": ("U8", (32, 2880, 90, 16)),
    "mlp.experts.down_proj_scales": ("U8", (32, 2880, 90)),
    "mlp.experts.gate_up_proj_bias": ("BF16", (32, 5760)),
    "mlp.experts.gate_up_proj_blocks": ("U8", (32, 5760, 90, 16)),
    "mlp.experts.gate_up_proj_scales": ("U8", (32, 5760, 90)),
    "mlp.router.bias": ("BF16", (32,)),
    "mlp.router.weight": ("BF16", (32, 2880)),
    "post_attention_layernorm.weight": ("BF16", (2880,)),
    "self_attn.k_proj.bias": ("BF16", (512,)),
    "self_attn.k_proj.weight": ("BF16", (512, 2880)),
    "self_attn.o_proj.bias": ("BF16", (2880,)),
    "self_attn.o_proj.weight": ("BF16", (2880, 4096)),
    "self_attn.q_proj.bias": ("BF16", (4096,)),
    "self_attn.q_proj.weight": ("BF16", (4096, 2880)),
    "self_attn.sinks": ("BF16", (64,)),
    "self_attn.v_proj.bias": ("BF16", (512,)),
    "self_attn.v_proj.weight": ("BF16", (512, 2880)),
}

OTHER_MODEL = "Take config.json and the weights from the same repository, and download both again"
BF16 = (
    "Use a checkpoint with MXFP4 experts: openai/gpt-oss-20b (or openai/gpt-oss-120b); or round a"
    " BF16 fine-tune to them: gpt-oss-mxfp4 convert FOLDER --output NEW_FOLDER"
    " (one on the Hub after `hf download REPOSITORY --local-dir FOLDER`)"
)
BLOCKS = "model.layers.0.mlp.experts.down_proj_blocks"
SCALES = "model.layers.0.mlp.experts.down_proj_scales"
PLAIN = "model.layers.0.mlp.experts.down_proj"


def table(config: GptOssConfig) -> Tensors:
    return {name: (spec.dtype, spec.shape) for name, spec in expected_tensors(config).items()}


def check(tensors: Tensors) -> None:
    entries = {
        name: TensorEntry(name, dtype, shape, Path("a.safetensors"), 0, 0)
        for name, (dtype, shape) in tensors.items()
    }
    specs = expected_tensors(GptOssConfig.from_dict(config_fields()))
    check_tensors(specs.items(), entries, "FOLDER")


def refusal(tensors: Tensors) -> str:
    with pytest.raises(CheckpointError) as caught:
        check(tensors)
    return str(caught.value)


def test_table_of_gpt_oss_20b_is_the_published_one() -> None:
    expected: Tensors = {
        "model.embed_tokens.weight": ("BF16", (201088, 2880)),
        "model.norm.weight": ("BF16", (2880,)),
        "lm_head.weight": ("BF16", (201088, 2880)),
    }
    for layer in range(24):
        expected |= {f"model.layers.{layer}.{name}": spec for name, spec in LAYER_20B.items()}
    assert table(GptOssConfig.from_dict(GPT_OSS_20B)) == expected


@pytest.mark.parametrize(
    ("layers", "experts", "nbytes"),
    [(24, 32, 13_761_264_768), (36, 128, 65_248_815_744)],
)
def test_table_has_as_many_bytes_as_the_published_index_says(
    layers: int, experts: int, nbytes: int
) -> None:
    """``metadata.total_size`` of the indexes of openai/gpt-oss-20b and openai/gpt-oss-120b."""
    sizes = {"num_hidden_layers": layers, "num_local_experts": experts, "layer_types": None}
    tensors = table(GptOssConfig.from_dict({**GPT_OSS_20B, **sizes}))
    assert sum(DTYPE_BYTES[d] * math.prod(shape) for d, shape in tensors.values()) == nbytes


def test_unequal_hidden_and_intermediate_sizes_group_along_the_reduced_axis() -> None:
    tensors = small_tensors(hidden_size=64, intermediate_size=160)
    assert tensors["model.layers.0.mlp.experts.gate_up_proj_blocks"] == ("U8", (2, 320, 2, 16))
    assert tensors["model.layers.0.mlp.experts.down_proj_blocks"] == ("U8", (2, 64, 5, 16))


def test_tied_embedding_asks_for_no_lm_head() -> None:
    tied, untied = small_tensors(tie_word_embeddings=True), small_tensors()
    assert set(untied) - set(tied) == {"lm_head.weight"}


def test_exact_tensors_pass() -> None:
    check(small_tensors())


def test_missing_tensor_is_named() -> None:
    tensors = small_tensors()
    del tensors["model.norm.weight"]
    text = "model.norm.weight must be there, is missing"
    assert refusal(tensors) == f"FOLDER: {text}. {OTHER_MODEL}."


def test_unexpected_tensor_is_named_with_its_file() -> None:
    tensors = small_tensors() | {"model.layers.9.\x1b[2J": ("BF16", (1,))}
    assert refusal(tensors) == (
        r"FOLDER: 'model.layers.9.\x1b[2J' in a.safetensors must not be there: the model does not use"
        " it. Move a file that is no part of the model (an adapter, a copy) out of the folder;"
        " otherwise take config.json and the weights from the same repository."
    )


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_dense_tensor_that_is_not_bf16_is_refused(dtype: str) -> None:
    tensors = small_tensors() | {"model.norm.weight": (dtype, (64,))}
    assert refusal(tensors) == (
        f"FOLDER: model.norm.weight must be BF16, got {dtype} in a.safetensors."
        " Save it as published, nothing is cast here: dense tensors BF16, blocks and scales U8."
    )


@pytest.mark.parametrize(
    ("name", "shape", "rule"),
    [
        ("model.norm.weight", (64, 1), "must be [64], got [64, 1]"),
        ("model.layers.1.mlp.router.bias", (), "must be [2], got []"),
    ],
)
def test_wrong_shape_is_refused(name: str, shape: tuple[int, ...], rule: str) -> None:
    tensors = small_tensors() | {name: ("BF16", shape)}
    text = f"{name} {rule} in a.safetensors"
    assert refusal(tensors) == f"FOLDER: {text}. {OTHER_MODEL}."


def test_expert_tensor_wrong_in_more_than_its_count_is_a_wrong_shape() -> None:
    tensors = small_tensors() | {SCALES: ("U8", (4, 64, 2))}
    text = f"{SCALES} must be [2, 64, 1], got [4, 64, 2] in a.safetensors"
    assert refusal(tensors) == f"FOLDER: {text}. {OTHER_MODEL}."


def test_head_dim_of_hidden_over_heads_is_refused() -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    tensors = small_tensors() | {name: ("BF16", (64,))}
    text = f"{name} must be [32], got [64] in a.safetensors"
    assert refusal(tensors) == f"FOLDER: {text}. {OTHER_MODEL}."


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        (BLOCKS, "U8", (4, 64, 1, 16)),
        (SCALES, "U8", (4, 64, 1)),
        ("model.layers.1.mlp.router.bias", "BF16", (4,)),
    ],
)
def test_wrong_expert_count_is_refused(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    tensors = small_tensors() | {name: (dtype, shape)}
    text = f"{name} must have num_local_experts = 2 experts, got 4 in a.safetensors"
    assert refusal(tensors) == f"FOLDER: {text}. {OTHER_MODEL}."


@pytest.mark.parametrize(("missing", "present"), [(SCALES, BLOCKS), (BLOCKS, SCALES)])
def test_blocks_and_scales_go_together(missing: str, present: str) -> None:
    tensors = small_tensors()
    del tensors[missing]
    assert refusal(tensors) == (
        f"FOLDER: {present} must have {missing} beside it, which is missing."
        " One means nothing without the other: download the checkpoint again."
    )


def test_either_half_of_a_pair_is_a_kind_of_fault_of_its_own() -> None:
    tensors = small_tensors()
    del tensors["model.layers.0.mlp.experts.down_proj_scales"]
    del tensors["model.layers.1.mlp.experts.gate_up_proj_blocks"]
    message = refusal(tensors)
    assert (
        "blocks without scales (1):\n  model.layers.0.mlp.experts.down_proj_blocks must" in message
    )
    assert "scales without blocks (1):\n  model.layers.1.mlp.experts.gate_up_proj_scales" in message


def test_one_projection_in_bf16_is_one_fault() -> None:
    tensors = small_tensors() | {PLAIN: ("BF16", (2, 32, 64))}
    del tensors[BLOCKS], tensors[SCALES]
    text = f"{PLAIN} must be MXFP4 ({BLOCKS}), got BF16"
    assert refusal(tensors) == f"FOLDER: {text}. {BF16}."


def test_bf16_experts_beside_their_blocks_are_unexpected() -> None:
    tensors = small_tensors() | {PLAIN: ("BF16", (2, 32, 64))}
    del tensors[SCALES]
    message = refusal(tensors)
    assert f"{PLAIN} in a.safetensors must not be there" in message
    assert f"{BLOCKS} must have {SCALES} beside it" in message


def test_tensors_without_end_are_not_all_looked_for() -> None:
    endless = ((f"model.{i}.weight", TensorSpec("BF16", (1,))) for i in itertools.count())
    with pytest.raises(CheckpointError) as error:
        check_tensors(endless, {}, "FOLDER")
    assert len(error.value.faults) == MAX_FAULTS


def test_of_tensors_that_must_not_be_there_not_all_are_told() -> None:
    entries: Any = {
        f"other.{i}.weight": SimpleNamespace(file=Path("a.safetensors"))
        for i in range(MAX_FAULTS + 1)
    }
    with pytest.raises(CheckpointError) as error:
        check_tensors([], entries, "FOLDER")
    assert len(error.value.faults) == MAX_FAULTS


def test_all_faults_come_in_one_message_sorted_with_ten_of_a_kind() -> None:
    tensors = {name: spec for name, spec in small_tensors().items() if "layers.1." not in name}
    tensors["model.norm.weight"] = ("F32", (65,))
    missing = sorted(name for name in small_tensors() if "layers.1." in name)
    # Experts of layer 1 lack blocks and scales alike, so none of them is half of a pair.
    assert refusal(tensors).splitlines() == [
        "FOLDER: 21 faults",
        "missing tensor (19):",
        *(f"  {name} must be there, is missing" for name in missing[:10]),
        "  and 9 more",
        f"  cure: {OTHER_MODEL}.",
        "wrong dtype (1):",
        "  model.norm.weight must be BF16, got F32 in a.safetensors",
        "  cure: Save it as published, nothing is cast here: dense tensors BF16, blocks and scales U8.",
        "wrong shape (1):",
        "  model.norm.weight must be [64], got [65] in a.safetensors",
        f"  cure: {OTHER_MODEL}.",
    ]
