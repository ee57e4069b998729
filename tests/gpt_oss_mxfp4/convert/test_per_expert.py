"""AMD Quark's and llm-compressor's MXFP4: every tensor of every expert in its place, or a refusal by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpt_oss_mxfp4.checkpoint.small import config_fields
from tests.gpt_oss_mxfp4.convert.folders import (
    Tensor,
    Tensors,
    assert_same_tensors,
    bf16,
    convert,
    read_tensors,
    refusal,
    small_model,
    u8,
    write_checkpoint,
)

QUARK = {
    "quant_method": "quark",
    "global_quant_config": {
        "weight": {"dtype": "fp4", "group_size": 32, "scale_format": "e8m0"},
        "input_tensors": {"dtype": "fp8_e4m3"},
    },
    "export": {"pack_method": "reorder", "weight_format": "real_quantized"},
}
"""As AMD's repositories have it, shortened; what it says of packing is of integers."""

COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "mxfp4-pack-quantized",
    "config_groups": {
        "group_0": {
            "format": "mxfp4-pack-quantized",
            "weights": {"num_bits": 4, "type": "float", "group_size": 32},
        }
    },
}


@dataclass(frozen=True)
class Producer:
    """How a program would have saved a model."""

    codes: str
    config: Mapping[str, Any]
    prefix: str = ""
    fused: bool = False
    halves: bool = True
    """Whether gates come before ups, or `gate_proj` is the first half of rows that take turns."""
    scale_dtype: str = "U8"

    def save(self, model: Mapping[str, Tensor]) -> Tensors:
        saved: Tensors = {}
        for name, tensor in model.items():
            base, _, last = name.rpartition(".")
            if not base.endswith(".mlp.experts"):
                saved[name] = tensor
                continue
            projection, _, part = last.rpartition("_")
            ending = {"blocks": self.codes, "scales": "weight_scale", "bias": "bias"}[part]
            for expert, data in enumerate(tensor.data):
                rows = data.reshape(data.shape[0], -1) if part == "blocks" else data
                for short, piece in self._parts(projection, rows):
                    dtype = self.scale_dtype if part == "scales" else tensor.dtype
                    saved[f"{base}.{self.prefix}{expert}.{short}.{ending}"] = Tensor(dtype, piece)
        return saved

    def _parts(self, projection: str, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
        if projection != "gate_up_proj":
            return [(projection, rows)]
        if self.halves:
            rows = np.concatenate([rows[0::2], rows[1::2]])
        if self.fused:
            return [("gate_up_proj", rows)]
        return list(zip(("gate_proj", "up_proj"), np.split(rows, 2), strict=True))


HALVES, IN_TURN = ("--gate-up", "halves"), ("--gate-up", "interleaved")

PRODUCERS = {
    "Quark": (Producer("weight", QUARK, fused=True, halves=False), ()),
    "Quark, scales with a dtype of their own": (
        Producer("weight", QUARK, fused=True, halves=False, scale_dtype="F8_E8M0"),
        (),
    ),
    "Quark, fused halves": (Producer("weight", QUARK, fused=True), HALVES),
    "Quark, two tensors": (Producer("weight", QUARK), HALVES),
    "Quark, two tensors in turn": (Producer("weight", QUARK, halves=False), IN_TURN),
    "llm-compressor, first": (Producer("weight_packed", COMPRESSED, prefix="experts."), ()),
    "llm-compressor, halves": (Producer("weight_packed", COMPRESSED), HALVES),
    "llm-compressor, in turn": (Producer("weight_packed", COMPRESSED, halves=False), IN_TURN),
}


@pytest.fixture
def model(rng: np.random.Generator) -> Tensors:
    return small_model(rng)


@pytest.mark.parametrize("name", PRODUCERS)
def test_every_expert_gets_its_bytes(
    name: str, model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    producer, order = PRODUCERS[name]
    config = config_fields(quantization_config=producer.config)
    source = write_checkpoint(tmp_path / "source", producer.save(model), config, files=2)
    err = convert(capfd, source, "--output", tmp_path / "mxfp4", *order)
    assert_same_tensors(read_tensors(tmp_path / "mxfp4"), model)
    assert f"{source}: {'AMD Quark' if 'Quark' in name else 'compressed-tensors'}\n" in err


def test_the_names_are_those_of_the_programs(model: Tensors) -> None:
    quark = PRODUCERS["Quark"][0].save(model)
    expert = "model.layers.1.mlp.experts.0."
    assert quark[f"{expert}gate_up_proj.weight"].data.shape == (64, 32)
    assert quark[f"{expert}gate_up_proj.weight_scale"].data.shape == (64, 2)
    assert quark[f"{expert}gate_up_proj.bias"].data.shape == (64,)
    assert quark[f"{expert}down_proj.weight"].data.shape == (64, 16)
    first = PRODUCERS["llm-compressor, first"][0].save(model)
    assert "model.layers.0.mlp.experts.experts.1.up_proj.weight_packed" in first


def test_scales_of_activations_are_left_out_and_it_is_said(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = PRODUCERS["Quark"][0].save(model)
    scale = Tensor("F32", np.array(np.float32(0.25)).view(np.uint32))
    extra = {
        "model.layers.0.mlp.experts.0.gate_up_proj.input_scale": scale,
        "model.layers.0.mlp.experts.1.down_proj.input_scale": scale,
        "model.layers.1.self_attn.k_proj.output_scale": scale,
        "model.layers.1.self_attn.v_scale": scale,
    }
    source = write_checkpoint(
        tmp_path / "source", {**saved, **extra}, config_fields(quantization_config=QUARK)
    )
    err = convert(capfd, source, "--output", tmp_path / "mxfp4")
    assert_same_tensors(read_tensors(tmp_path / "mxfp4"), model)
    assert (
        "4 scales of activations and of the KV cache, such as model.layers.0.mlp.experts.0.gate_up_proj.input_scale,"
        " are left out: here nothing is rounded by them, so logits differ slightly from those of a program that does\n"
    ) in err


@pytest.mark.parametrize(
    ("producer", "message"),
    [
        (
            Producer("weight", QUARK),
            "AMD Quark: the order of rows in gate_proj and up_proj cannot be told from the file",
        ),
        (
            Producer("weight_packed", COMPRESSED),
            "compressed-tensors: the order of rows in gate_proj and up_proj cannot be told from the file",
        ),
        *(
            (
                Producer("weight_packed", COMPRESSED, prefix=prefix, fused=True),
                "compressed-tensors: the order of rows in gate_up_proj cannot be told from the file",
            )
            for prefix in ("", "experts.")
        ),
        (
            Producer("weight", QUARK, prefix="experts."),
            "AMD Quark: the order of rows in gate_proj and up_proj cannot be told from the file",
        ),
    ],
)
def test_an_order_that_cannot_be_told_has_to_be_said(
    producer: Producer,
    message: str,
    model: Tensors,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = config_fields(quantization_config=producer.config)
    source = write_checkpoint(tmp_path / "source", producer.save(model), config)
    said = refusal(capfd, source, "--output", tmp_path / "mxfp4")
    assert said.startswith(f"{source}: {message}, programs that write such files differ in it. ")
    assert "--gate-up halves" in said
    assert "--gate-up interleaved" in said
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**QUARK, "global_quant_config": {"weight": {"dtype": "int4"}}},
            'quantization_config: weight.dtype must be "fp4", got "int4"',
        ),
        (
            {**QUARK, "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 16}}},
            "quantization_config: weight.group_size must be 32, got 16",
        ),
        (
            {**QUARK, "quant_method": "other"},
            'quantization_config.quant_method must be "quark" with such tensors, got "other"',
        ),
        (
            {**QUARK, "algo_config": [{"name": "rotation", "online_r1_rotation": True}]},
            "quantization_config.algo_config must have no rotation",
        ),
    ],
)
def test_what_quark_s_config_says_otherwise_is_refused(
    config: dict[str, Any],
    message: str,
    model: Tensors,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    saved = PRODUCERS["Quark"][0].save(model)
    source = write_checkpoint(tmp_path / "source", saved, config_fields(quantization_config=config))
    assert message in refusal(capfd, source, "--output", tmp_path / "mxfp4")


def test_another_format_of_compressed_tensors_is_refused(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = PRODUCERS["llm-compressor, first"][0].save(model)
    config = {**COMPRESSED, "format": "pack-quantized"}
    source = write_checkpoint(tmp_path / "source", saved, config_fields(quantization_config=config))
    assert (
        'quantization_config.format must be "mxfp4-pack-quantized", got "pack-quantized"'
        in refusal(capfd, source, "--output", tmp_path / "mxfp4")
    )


def test_missing_misshapen_and_mistyped_tensors_of_experts_come_in_one_message(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = PRODUCERS["Quark"][0].save(model)
    expert = "model.layers.0.mlp.experts.1."
    del saved[f"{expert}gate_up_proj.weight_scale"]
    saved[f"{expert}gate_up_proj.weight"] = u8(np.zeros((64, 33)))
    saved[f"{expert}down_proj.weight"] = bf16(np.zeros((64, 16)))
    codes = "model.layers.1.mlp.experts.0.down_proj.weight"
    saved[codes] = saved[codes]._replace(dtype="F8_E8M0")
    saved["model.layers.0.mlp.experts.2.down_proj.bias"] = bf16(np.zeros(64))
    source = write_checkpoint(tmp_path / "source", saved, config_fields(quantization_config=QUARK))
    said = refusal(capfd, source, "--output", tmp_path / "mxfp4")
    for line in (
        f"{source}: 5 faults",
        f"  {expert}gate_up_proj.weight_scale must be there, is missing",
        f"  {expert}gate_up_proj.weight must be [64, 32], got [64, 33] in model-00001-of-00001.safetensors",
        f"  {expert}down_proj.weight must be U8, got BF16 in model-00001-of-00001.safetensors",
        f"  {codes} must be U8, got F8_E8M0 in model-00001-of-00001.safetensors",
        "  model.layers.0.mlp.experts.2.down_proj.bias in model-00001-of-00001.safetensors must not be there:",
    ):
        assert line in said


def test_a_config_that_asks_for_millions_of_experts_is_refused_at_once(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = PRODUCERS["Quark"][0].save(model)
    config = config_fields(
        quantization_config=QUARK, num_local_experts=4096, num_hidden_layers=1024, layer_types=None
    )
    source = write_checkpoint(tmp_path / "source", saved, config)
    said = refusal(capfd, source, "--output", tmp_path / "mxfp4")
    assert "missing tensor (" in said
    assert said.count("\n") < 60
