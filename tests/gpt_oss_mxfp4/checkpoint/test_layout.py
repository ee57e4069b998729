"""Layouts by name and dtype: those that are loaded, and those that others write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects

from gpt_oss_mxfp4.checkpoint import layout
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hub import NOT_READ, WEIGHT_FILES
from gpt_oss_mxfp4.checkpoint.layout import Layout, recognise_layout
from gpt_oss_mxfp4.convert.layouts import recognise
from tests.gpt_oss_mxfp4.checkpoint.small import ORIGINAL, Tensors, small_tensors
from tests.gpt_oss_mxfp4.checkpoint.test_checkpoint import bf16_tensors

EXPERT = "model.layers.0.mlp.experts"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        (".model.safetensors", False),
        ("._model.safetensors", False),
        (".safetensors", False),
        ("original/model.safetensors", False),
        (".hidden/model.safetensors", False),
        ("model.safetensors.index.json", False),
        ("model.bin", False),
    ],
)
def test_hidden_files_and_those_of_sub_folders_are_no_weight_files(
    name: str, expected: bool
) -> None:
    assert layout.is_weight_file(name) == expected
    of_hub = filter_repo_objects([name], allow_patterns=WEIGHT_FILES, ignore_patterns=NOT_READ)
    assert list(of_hub) == [name] * expected  # what huggingface_hub makes of the patterns


@pytest.mark.parametrize(
    ("tensors", "fields", "expected"),
    [
        (small_tensors(), {}, layout.HUGGING_FACE),
        (small_tensors() | ORIGINAL, {}, layout.HUGGING_FACE),
        (small_tensors(), {"model_type": "llama"}, layout.HUGGING_FACE),
        (bf16_tensors(), {}, layout.HUGGING_FACE_BF16),
        (bf16_tensors(), {"quantization_config": 7}, layout.HUGGING_FACE_BF16),
        (ORIGINAL, {}, layout.ORIGINAL),
        ({"block.0.mlp.mlp1_weight": ("BF16", (2, 64, 64))}, {}, layout.ORIGINAL_BF16),
        (
            {
                f"{EXPERT}.0.gate_up_proj.weight": ("U8", (64, 32)),
                f"{EXPERT}.0.gate_up_proj.weight_scale": ("U8", (64, 2)),
            },
            {},
            layout.QUARK,
        ),
        (bf16_tensors(), {"quantization_config": {"quant_method": "quark"}}, layout.QUARK),
        (
            {
                f"{EXPERT}.gate_up_proj_weight_packed": ("U8", (2, 64, 32)),
                f"{EXPERT}.gate_up_proj_weight_scale": ("U8", (2, 64, 2)),
            },
            {},
            layout.COMPRESSED_TENSORS,
        ),
        (
            {f"{EXPERT}.0.gate_proj.weight_packed": ("U8", (32, 32))},
            {},
            layout.COMPRESSED_TENSORS,
        ),
        (
            bf16_tensors() | {"model.layers.0.self_attn.k_scale": ("F32", ())},
            {},
            layout.HUGGING_FACE_BF16,
        ),
        (
            {
                f"{EXPERT}.0.up_proj.weight": ("I8", (1,)),
                f"{EXPERT}.0.up_proj.weight_scale": ("F32", ()),
            },
            {},
            layout.UNKNOWN,
        ),
        ({"a_blocks": ("U8", (1,))}, {}, layout.UNKNOWN),
        (
            {"a": ("BF16", (1,))},
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            layout.COMPRESSED_TENSORS,
        ),
        ({"a": ("BF16", (1,))}, {"model_type": "llama"}, layout.OTHER_MODEL),
        ({"a": ("BF16", (1,))}, {}, layout.UNKNOWN),
        ({}, {"model_type": "llama"}, layout.EMPTY),
    ],
)
def test_layout_is_recognised(tensors: Tensors, fields: dict[str, Any], expected: Layout) -> None:
    dtypes = {name: dtype for name, (dtype, _) in tensors.items()}
    assert recognise_layout(dtypes, fields) == expected


PART = f"{EXPERT}.0.up_proj.weight"


@pytest.mark.parametrize(
    ("dtypes", "name"),
    [
        ({f"{PART}.absmax": "F32"}, "bitsandbytes"),
        (
            {f"{PART}_packed": "U8", f"{PART}_scale": "F8_E4M3", f"{PART}_global_scale": "F32"},
            "nvfp4",
        ),
        ({f"{EXPERT}.0.up_proj.qweight": "I32"}, "integers"),
        ({f"{PART}_packed": "I32", f"{PART}_shape": "I64"}, "integers"),
        ({f"{EXPERT}.gate_up_projs.0.weight": "BF16"}, "unsloth"),
        ({"base_model.model.lm_head.lora_A.weight": "BF16"}, "adapter"),
        ({PART: "F8_E4M3", f"{PART}_scale": "BF16"}, "fp8"),
        ({f"{EXPERT}.gate_up_proj": "F8_E5M2", f"{EXPERT}.gate_up_proj_scale": "BF16"}, "fp8"),
    ],
)
def test_what_convert_refuses_by_name_has_that_name(dtypes: dict[str, str], name: str) -> None:
    """And another model in the same format is another model's."""
    found = recognise_layout(dtypes, {})
    assert found.name == name
    with pytest.raises(CheckpointError, match=f"is {re.escape(found.description)} \\(it has "):
        recognise(dtypes, {}, None, Path("folder"))
    mixtral = {"model_type": "mixtral", "quantization_config": {"quant_method": "fp8"}}
    assert recognise_layout(dtypes, mixtral) == layout.OTHER_MODEL
    with pytest.raises(CheckpointError, match=r'config\.json: model_type must be "gpt_oss"'):
        recognise(dtypes, mixtral, None, Path("folder"))


def test_experts_of_another_model_in_fp8_are_not_amd_quark_s() -> None:
    dtypes = {"model.layers.0.block_sparse_moe.experts.0.w1.weight_scale": "F32"}
    fields = {"model_type": "mixtral", "quantization_config": {"quant_method": "fp8"}}
    assert recognise_layout(dtypes, fields) == layout.OTHER_MODEL
