"""Layouts by name and dtype: those that are loaded, and those that others write."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint import layout
from gpt_oss_mxfp4.checkpoint.layout import Layout, recognise_layout
from tests.gpt_oss_mxfp4.checkpoint.small import ORIGINAL, Tensors, small_tensors
from tests.gpt_oss_mxfp4.checkpoint.test_checkpoint import bf16_tensors

EXPERT = "model.layers.0.mlp.experts"


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
