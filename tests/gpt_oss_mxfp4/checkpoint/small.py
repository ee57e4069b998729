"""Small checkpoint folders, written byte by byte: any header, however wrong, can be made."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.schema import expected_tensors
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.options import DEMO_MODEL

DTYPE_BYTES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Name to dtype and shape."""

ORIGINAL: Tensors = {
    "block.0.attn.norm.scale": ("BF16", (64,)),
    "block.0.attn.qkv.weight": ("BF16", (64, 64)),
    "block.0.mlp.mlp1_weight.blocks": ("U8", (2, 64, 2, 16)),
    "embedding.weight": ("BF16", (16, 64)),
}
"""Some tensors of the ``original/`` layout: 128 + 8192 + 4096 + 2048 bytes."""


def config_fields(**changes: Any) -> dict[str, Any]:
    """A config.json of two layers and two experts; a change to None removes the key."""
    fields: dict[str, Any] = {
        "model_type": "gpt_oss",
        "vocab_size": 16,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 128,
        "rms_norm_eps": 1e-05,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        "swiglu_limit": 7.0,
        "max_position_embeddings": 131072,
        "rope_theta": 150000,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    }
    fields.update(changes)
    return {key: value for key, value in fields.items() if value is not None}


def small_tensors(**changes: Any) -> Tensors:
    """The tensors that ``config_fields(**changes)`` asks for."""
    config = GptOssConfig.from_dict(config_fields(**changes))
    return {name: (spec.dtype, spec.shape) for name, spec in expected_tensors(config).items()}


def file_bytes(tensors: Tensors) -> bytes:
    """A sound safetensors file of zeros."""
    header, position = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPE_BYTES[dtype]
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    return raw_file(json.dumps(header).encode(), bytes(position))


def raw_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of any header; ``length`` is what its first eight bytes claim."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def write_folder(
    folder: Path,
    files: Mapping[str, Tensors],
    weight_map: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Writes config.json, safetensors files, a tokenizer and, where given, the index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes((DEMO_MODEL / "tokenizer.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config_fields(**changes)))
    for name, tensors in files.items():
        (folder / name).write_bytes(file_bytes(tensors))
    if weight_map is not None:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def refusal(folder: Path) -> str:
    """The message with which a folder is refused, its own path written as FOLDER."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    return str(caught.value).replace(str(folder), "FOLDER")
