"""Small checkpoints of any layout: whole in memory, written and read by other code than the package's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import deserialize

from gpt_oss_mxfp4 import cli
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields, raw_file
from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16
from tests.reference.mxfp4 import quantize

STORED = {
    "BF16": np.uint16,
    "U8": np.uint8,
    "F8_E8M0": np.uint8,
    "F32": np.uint32,
    "I32": np.uint32,
}


class Tensor(NamedTuple):
    """A tensor as a file holds it."""

    dtype: str
    data: NDArray[Any]
    """Its bits, as unsigned integers in its shape."""


Tensors = dict[str, Tensor]


def bf16(values: Any) -> Tensor:
    return Tensor("BF16", encode_bfloat16(values))


def u8(data: Any) -> Tensor:
    return Tensor("U8", np.ascontiguousarray(data, np.uint8))


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], files: int = 1
) -> Path:
    """Writes a folder, its tensors dealt out to some files in turn."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    for i in range(files):
        header, parts, position = {}, [], 0
        for name in names[i::files]:
            data = tensors[name].data.tobytes()
            header[name] = {
                "dtype": tensors[name].dtype,
                "shape": list(tensors[name].data.shape),
                "data_offsets": [position, position + len(data)],
            }
            position += len(data)
            parts.append(data)
        path = folder / f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        path.write_bytes(raw_file(json.dumps(header).encode(), b"".join(parts)))
    return folder


def read_tensors(folder: Path) -> Tensors:
    """Every tensor of a folder, by the safetensors library."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):
            data = np.frombuffer(bytes(tensor["data"]), STORED[tensor["dtype"]])
            tensors[name] = Tensor(tensor["dtype"], data.reshape(tensor["shape"]))
    return tensors


def assert_same_tensors(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    assert sorted(got) == sorted(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(got[name].data, tensor.data, err_msg=name)


def as_numbers(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """BF16 as float32, U8 as it is: what the reference models take."""
    return {
        name: decode_bfloat16(tensor.data) if tensor.dtype == "BF16" else tensor.data
        for name, tensor in tensors.items()
    }


def convert(capfd: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Runs the verb, which must succeed; gives what it says on standard error."""
    capfd.readouterr()
    code = cli.main(["convert", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert out == f"{arguments[arguments.index('--output') + 1]}\n"
    return err


def refusal(capfd: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Runs the verb, which must refuse; gives its message, without the command's name."""
    capfd.readouterr()
    code = cli.main(["convert", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    return err[err.index("gpt-oss-mxfp4: ") + len("gpt-oss-mxfp4: ") :].rstrip("\n")


SIZES = {"hidden": 64, "inner": 32, "experts": 2, "layers": 2, "vocab": 16, "q": 32, "kv": 16}
"""Those of ``small.config_fields``."""


def small_model(rng: np.random.Generator) -> Tensors:
    """Random tensors of Hugging Face's layout with MXFP4 experts, for ``config_fields()``."""
    s = SIZES

    def dense(*shape: int) -> Tensor:
        return bf16(rng.standard_normal(shape) / math.sqrt(shape[-1]))

    tensors = {"model.embed_tokens.weight": dense(s["vocab"], s["hidden"])}
    for i in range(s["layers"]):
        p = f"model.layers.{i}."
        tensors[p + "input_layernorm.weight"] = dense(s["hidden"])
        for name, rows in (("q", s["q"]), ("k", s["kv"]), ("v", s["kv"])):
            tensors[f"{p}self_attn.{name}_proj.weight"] = dense(rows, s["hidden"])
            tensors[f"{p}self_attn.{name}_proj.bias"] = dense(rows)
        tensors[p + "self_attn.o_proj.weight"] = dense(s["hidden"], s["q"])
        tensors[p + "self_attn.o_proj.bias"] = dense(s["hidden"])
        tensors[p + "self_attn.sinks"] = dense(4)
        tensors[p + "post_attention_layernorm.weight"] = dense(s["hidden"])
        tensors[p + "mlp.router.weight"] = dense(s["experts"], s["hidden"])
        tensors[p + "mlp.router.bias"] = dense(s["experts"])
        for name, n, k in (
            ("gate_up_proj", 2 * s["inner"], s["hidden"]),
            ("down_proj", s["hidden"], s["inner"]),
        ):
            blocks, scales = quantize(rng.standard_normal((s["experts"], n, k)))
            tensors[f"{p}mlp.experts.{name}_blocks"] = u8(blocks)
            tensors[f"{p}mlp.experts.{name}_scales"] = u8(scales)
            tensors[f"{p}mlp.experts.{name}_bias"] = dense(s["experts"], n)
    tensors["model.norm.weight"] = dense(s["hidden"])
    tensors["lm_head.weight"] = dense(s["vocab"], s["hidden"])
    return tensors


def original_config() -> dict[str, Any]:
    """original/config.json for ``config_fields()``."""
    fields = config_fields()
    return {
        **{key: fields[key] for key in fields if key in ORIGINAL_KEYS},
        "num_experts": fields["num_local_experts"],
        "experts_per_token": fields["num_experts_per_tok"],
        "initial_context_length": 4096,
        "rope_theta": 150000,
        "rope_scaling_factor": 32.0,
        "rope_ntk_alpha": 1,
        "rope_ntk_beta": 32,
    }


ORIGINAL_KEYS = (
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


def as_original(tensors: Mapping[str, Tensor]) -> Tensors:
    """The twin in OpenAI's layout, by a list of names of its own."""
    original: Tensors = {}
    names = {
        "input_layernorm.weight": "attn.norm.scale",
        "self_attn.o_proj.weight": "attn.out.weight",
        "self_attn.o_proj.bias": "attn.out.bias",
        "self_attn.sinks": "attn.sinks",
        "post_attention_layernorm.weight": "mlp.norm.scale",
        "mlp.router.weight": "mlp.gate.weight",
        "mlp.router.bias": "mlp.gate.bias",
        "mlp.experts.gate_up_proj_blocks": "mlp.mlp1_weight.blocks",
        "mlp.experts.gate_up_proj_scales": "mlp.mlp1_weight.scales",
        "mlp.experts.gate_up_proj_bias": "mlp.mlp1_bias",
        "mlp.experts.down_proj_blocks": "mlp.mlp2_weight.blocks",
        "mlp.experts.down_proj_scales": "mlp.mlp2_weight.scales",
        "mlp.experts.down_proj_bias": "mlp.mlp2_bias",
    }
    original["embedding.weight"] = tensors["model.embed_tokens.weight"]
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    for i in sorted(layers, key=int):
        old, new = f"model.layers.{i}.", f"block.{i}."
        for part in ("weight", "bias"):
            rows = [tensors[f"{old}self_attn.{x}_proj.{part}"].data for x in "qkv"]
            original[f"{new}attn.qkv.{part}"] = Tensor("BF16", np.concatenate(rows))
        for theirs, ours in names.items():
            original[new + ours] = tensors[old + theirs]
    original["norm.scale"] = tensors["model.norm.weight"]
    original["unembedding.weight"] = tensors["lm_head.weight"]
    return original
