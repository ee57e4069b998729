"""What MAX is told about the model: caches, lengths, devices, and which files are read."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from max.driver import DeviceSpec
from max.dtype import DType
from max.graph import DeviceRef
from max.pipelines.lib import PipelineArgs, PipelineConfig
from max.pipelines.lib.memory_estimation import MemoryEstimator
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from safetensors.numpy import save_file

from gpt_oss_mxfp4.arch import GPT_OSS
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.footprint import DEFAULT_LENGTH
from gpt_oss_mxfp4.model_config import (
    VARIABLES,
    GptOssArchConfig,
    only_device,
    requested_layers,
)
from gpt_oss_mxfp4.options import LayerOptions
from scripts.make_synthetic import SIZES
from tests.golden import CHECKPOINT
from tests.sparse_checkpoint import make_sparse_checkpoint


def pipeline_config(model: Path, **arguments: Any) -> PipelineConfig:
    """What plain ``max generate --devices cpu --quantization-encoding float32`` makes of a folder."""
    return PipelineConfig.from_args(
        PipelineArgs(
            model_path=str(model),
            quantization_encoding="float32",
            device_specs=[DeviceSpec.cpu()],
            runtime=PipelineRuntimeConfig(custom_architectures=["gpt_oss_mxfp4"]),
            **arguments,
        )
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint of its own: open checkpoints are remembered by folder."""
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def test_one_device_only() -> None:
    with pytest.raises(ValueError, match="runs on one device, got 2"):
        only_device([DeviceRef.GPU(0), DeviceRef.GPU(1)])


@pytest.mark.parametrize(
    ("asked", "length"), [(None, DEFAULT_LENGTH), (300, 300), (131072, 131072)]
)
def test_length_is_what_is_asked_for(asked: int | None, length: int) -> None:
    config = pipeline_config(CHECKPOINT, max_length=asked)
    assert config.model.max_length == length


def test_more_length_than_the_model_has_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds the model's max_position_embeddings"):
        pipeline_config(CHECKPOINT, max_length=131073)


def test_kv_cache_is_sized_to_batch_and_length_not_to_the_machine() -> None:
    plan = MemoryEstimator.plan(pipeline_config(CHECKPOINT, max_length=1024), GPT_OSS)
    assert plan.planned_max_batch_size == 1
    assert plan.available_cache_memory is not None
    token_bytes = 4 * 2 * 2 * 64 * 4  # layers, key and value, kv heads, head_dim, float32
    assert plan.available_cache_memory <= 2 * 1024 * token_bytes


@pytest.mark.parametrize(
    ("activations", "dense_weights"),
    [(None, None), ("bfloat16", "int8"), ("float32", "mxfp8"), ("int8", "bfloat16")],
)
def test_what_layers_round_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, activations: str | None, dense_weights: str | None
) -> None:
    for variable, value in (
        (VARIABLES["activations"].name, activations),
        (VARIABLES["dense_weights"].name, dense_weights),
    ):
        if value:
            monkeypatch.setenv(variable, value)
    asked = pipeline_config(CHECKPOINT)
    config = GptOssArchConfig.initialize(asked, max_seq_len=100)
    # What MAX asks for once more, to make the cache that the graph was built for.
    assert config.kv_params == GptOssArchConfig.construct_kv_params(
        None, asked, config.devices, asked.model.kv_cache, DType.float8_e4m3fn
    )
    assert config.layers.activations == (activations or "bfloat16")
    assert config.layers.dense_weights == (dense_weights or "bfloat16")


@pytest.mark.parametrize("field", ["activations", "dense_weights"])
def test_a_precision_that_no_gpu_computes_in_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """MAX's own commands ask for it, too."""
    variable = VARIABLES[field].name
    monkeypatch.setenv(variable, "int8")
    asked = pipeline_config(CHECKPOINT)
    on_gpu = asked.model.model_copy(update={"device_specs": [DeviceSpec.accelerator()]})
    with pytest.raises(ValueError, match=f"{variable} must be bfloat16 on a GPU, got 'int8'; "):
        GptOssArchConfig.initialize(asked, on_gpu, max_seq_len=100)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("activations", "bfloat16 or float32 or int8"),
        ("dense_weights", "bfloat16 or int8 or mxfp8"),
    ],
)
def test_an_unknown_precision_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: str, known: str
) -> None:
    variable = VARIABLES[field].name
    monkeypatch.setenv(variable, "int4")
    with pytest.raises(ValueError, match=f"{variable} must be {known}, got 'int4'"):
        GptOssArchConfig.initialize(pipeline_config(CHECKPOINT), max_seq_len=100)


@pytest.mark.parametrize(
    ("kernel", "device", "packed"),
    [
        (None, DeviceRef.GPU(), True),
        ("sm90", DeviceRef.GPU(), True),
        ("sm90_mlp", DeviceRef.GPU(), True),
        ("strided", DeviceRef.GPU(), False),
        ("sm90", DeviceRef.CPU(), False),
    ],
)
def test_experts_are_packed_for_hoppers_kernels_alone(
    monkeypatch: pytest.MonkeyPatch, kernel: str | None, device: DeviceRef, packed: bool
) -> None:
    if kernel:
        monkeypatch.setenv(VARIABLES["kernel"].name, kernel)
    one_kernel = kernel == "sm90_mlp"
    assert requested_layers(device) == LayerOptions(packed=packed, one_kernel=one_kernel)


@pytest.mark.parametrize("kernel", [None, "max", "sm90"])
@pytest.mark.parametrize("field", ["attention", "dense"])
def test_attention_and_dense_matmuls_are_maxs_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, field: str, kernel: str | None
) -> None:
    """On a GPU; a CPU has one kernel of each, and makes no other graph for what a variable says."""
    if kernel:
        monkeypatch.setenv(VARIABLES[field].name, kernel)
    config = GptOssArchConfig.initialize(pipeline_config(CHECKPOINT), max_seq_len=100)
    assert config.layers == requested_layers(DeviceRef.CPU()) == LayerOptions()
    assert getattr(requested_layers(DeviceRef.GPU()), field) == (kernel or "max")


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES["kernel"].name, "sm100")
    with pytest.raises(
        ValueError, match="MXFP4_GROUPED_KERNEL must be sm90 or sm90_mlp or strided, got 'sm100'"
    ):
        GptOssArchConfig.initialize(pipeline_config(CHECKPOINT), max_seq_len=100)


def test_a_bad_checkpoint_fails_before_its_weights_are_read(copy: Path) -> None:
    shard = next(copy.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        MemoryEstimator.plan(pipeline_config(copy), GPT_OSS)


def test_weights_on_a_cpu_need_no_memory_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A large process that starts this one leaves it less, as MAX counts (NOTES F79)."""
    monkeypatch.setattr(MemoryEstimator, "_free_memory", lambda devices: 4 * 2**30)
    folder = make_sparse_checkpoint(tmp_path / "model", SIZES["20b"])
    plan = MemoryEstimator.plan(pipeline_config(folder), GPT_OSS)
    assert plan.planned_max_length == DEFAULT_LENGTH


def test_copies_in_sub_folders_are_neither_counted_nor_read(
    copy: Path, caplog: pytest.LogCaptureFixture, rng: Any
) -> None:
    (copy / "original").mkdir()
    save_file(
        {"block.0.attn.sinks": rng.standard_normal(1000, "f4")},
        copy / "original" / "model.safetensors",
    )
    config = pipeline_config(copy)
    assert (
        Path("original/model.safetensors") in config.model.weight_path
    )  # MAX takes it for weights
    with caplog.at_level(logging.WARNING, "max.pipelines"):
        arch_config = GptOssArchConfig.initialize(config, max_seq_len=100)
    assert [record.getMessage() for record in caplog.records] == [
        f"{copy}: original/ holds copies of the weights and is not read"
    ]
    assert GPT_OSS.memory_planner is not None
    on_gpu = dataclasses.replace(arch_config, devices=[DeviceRef.GPU()], layers=LayerOptions())
    size = GPT_OSS.memory_planner(on_gpu).estimate_weights_size(config)
    assert size == sum(file.stat().st_size for file in copy.glob("*.safetensors"))
