"""The twin of the golden checkpoint, read back by the `gguf` package: every tensor, every number of the model."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from benchmarks.cpu.gguf_twin import DENSE, NoTwin, check_twin, write_twin
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.config import FULL
from tests import tolerances
from tests.golden import CHECKPOINT, load_prompts
from tests.measure import logit_error
from tests.reference.model import read_checkpoint
from tests.reference.mxfp4 import dequantize

ROOT = Path(__file__).resolve().parents[3]

OURS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_sinks.weight": "self_attn.sinks",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate_inp.weight": "mlp.router.weight",
    "ffn_gate_inp.bias": "mlp.router.bias",
    "ffn_gate_exps.weight": "mlp.experts.gate_up_proj 0",
    "ffn_gate_exps.bias": "mlp.experts.gate_up_proj_bias 0",
    "ffn_up_exps.weight": "mlp.experts.gate_up_proj 1",
    "ffn_up_exps.bias": "mlp.experts.gate_up_proj_bias 1",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
}
"""llama.cpp's names, and ours; 0 and 1 are the even and the odd rows."""


@pytest.fixture(scope="module", params=sorted(DENSE))
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("twin") / f"{request.param}.gguf"
    write_twin(open_checkpoint(CHECKPOINT), path, request.param)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


def wanted(name: str) -> Any:
    """A tensor of the checkpoint under llama.cpp's name, dequantized."""
    _, weights = read_checkpoint(CHECKPOINT)
    if name in OURS:
        return weights[OURS[name]]
    _, layer, rest = name.split(".", 2)
    source, _, half = LAYER[rest].partition(" ")
    full = f"model.layers.{layer}.{source}"
    if f"{full}_blocks" in weights:
        values: Any = dequantize(weights[f"{full}_blocks"], weights[f"{full}_scales"])
    else:
        values = weights[full]
    return values[:, int(half) :: 2] if half else values


def test_every_tensor_is_the_checkpoints(twin: Path) -> None:
    reader = gguf.GGUFReader(twin)
    names = {tensor.name for tensor in reader.tensors}
    assert names == {*OURS, *(f"blk.{i}.{name}" for i in range(4) for name in LAYER)}
    for tensor in reader.tensors:
        want = wanted(tensor.name)
        got = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(want.shape)
        assert tensor.shape.tolist() == list(want.shape)[::-1]
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0:
            groups = np.abs(want).reshape(-1, 32).max(axis=-1, keepdims=True)
            error = np.abs(got - want).reshape(-1, 32)
            # Half a step of 1/127 of the largest; the step itself is rounded to float16.
            assert (error <= groups / 127 * 0.5 * 1.1).all(), tensor.name
        else:
            assert np.array_equal(got, want), tensor.name
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    dense = twin.stem.upper()
    assert types["blk.0.ffn_up_exps.weight"] == "MXFP4"
    assert types["blk.0.attn_q.weight"] == types["output.weight"] == dense
    assert types["blk.0.ffn_gate_inp.weight"] == types["blk.0.attn_sinks.weight"] == "F32"


def test_the_models_numbers_are_llama_cpps_keys(twin: Path) -> None:
    reader = gguf.GGUFReader(twin)
    got = {key: field.contents() for key, field in reader.fields.items() if "GGUF." not in key}
    assert {key.removeprefix("gpt-oss."): value for key, value in got.items()} == {
        "general.architecture": "gpt-oss",
        "block_count": 4,
        "context_length": 131072,
        "embedding_length": 192,
        "feed_forward_length": 160,
        "expert_feed_forward_length": 160,
        "expert_count": 8,
        "expert_used_count": 4,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.sliding_window": 128,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "rope.dimension_count": 64,
        "rope.freq_base": 150000,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 32,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_beta_fast": 32,
        "rope.scaling.yarn_beta_slow": 1,
        "tokenizer.ggml.model": "none",
        "vocab_size": 384,
    }


def test_what_llama_cpp_has_fixed_otherwise_is_refused() -> None:
    config = open_checkpoint(CHECKPOINT).config
    check_twin(config)
    rope = dataclasses.replace(config.rope, attention_factor=1.0)
    for changes, message in (
        ({"layer_types": (FULL,) * 4}, "layer_types must be"),
        ({"swiglu_limit": 5.0}, "swiglu_limit must be 7.0, got 5.0"),
        ({"rope": rope}, "attention_factor must be 1.34"),
    ):
        with pytest.raises(NoTwin, match=message):
            check_twin(dataclasses.replace(config, **changes))


def test_llama_cpp_computes_the_golden_logits_from_it(twin: Path, tmp_path: Path) -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("the llama-cpp-python package, part of the bench extra, is not installed")
    prompt = next(p for p in load_prompts() if p.name == "window")
    (tmp_path / "tokens.json").write_text(str(prompt.token_ids.tolist()))
    command = [sys.executable, "-m", "benchmarks.cpu.llama_side", str(twin)]
    command += ["--tokens", str(tmp_path / "tokens.json"), "--logits", str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True, cwd=ROOT, env=dict(os.environ))
    error = logit_error(np.load(tmp_path / "logits.npy"), prompt.logits)
    print(f"{twin.stem}: {error}")
    assert error.maximum <= tolerances.LLAMA_CPP.maximum
    assert error.mean <= tolerances.LLAMA_CPP.mean
    assert error.top1 >= tolerances.LLAMA_CPP.top1
