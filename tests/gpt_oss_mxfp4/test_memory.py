"""What MAX is told that the model takes: the packed weights, and no copy of them in another form."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from max.graph import DeviceRef
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib.pipeline_runtime_config import DEFAULT_MAX_BATCH_INPUT_TOKENS

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.footprint import (
    ACTIVATION_BYTES,
    CODE_BYTES,
    GPU_ACTIVATION_BYTES_OF_TOKEN,
    PREFILL_TOKENS,
    padding_bytes,
)
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.memory import GptOssMemoryPlanner
from gpt_oss_mxfp4.model_config import GptOssArchConfig
from gpt_oss_mxfp4.options import LayerOptions
from scripts.make_synthetic import SIZES
from tests.sparse_checkpoint import make_sparse_checkpoint

UNUSED: Any = None


def prefilling(tokens: int, of_each: int = 0, sequences: int | None = None) -> Any:
    """What of MAX's config says how many tokens are prefilled at once."""
    return SimpleNamespace(
        runtime=SimpleNamespace(
            max_batch_input_tokens=tokens,
            max_request_input_tokens=of_each,
            max_batch_size=sequences,
        )
    )


def of_device(checkpoint: Checkpoint, device: DeviceRef, length: int) -> GptOssArchConfig:
    """What the planner is told of a checkpoint that is to run there."""
    return GptOssArchConfig(
        checkpoint=checkpoint,
        devices=[device],
        layers=LayerOptions(packed=device.is_gpu()),
        kv_params=kv_cache_params(checkpoint.config, KVCacheConfig(), device, "bfloat16"),
        max_seq_len=length,
    )


def test_a_gpu_prefills_as_much_in_a_step_as_max_has_it_do_by_default() -> None:
    assert PREFILL_TOKENS["gpu"] == DEFAULT_MAX_BATCH_INPUT_TOKENS


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_is_set_aside_is_enough_for_a_step(device: str) -> None:
    of_token = GPU_ACTIVATION_BYTES_OF_TOKEN * (2 if device == "cpu" else 1)
    of_tokens = PREFILL_TOKENS[device] * of_token
    assert CODE_BYTES + of_tokens <= ACTIVATION_BYTES


@pytest.mark.parametrize(
    ("size", "weights", "memory"), [("20b", 13.8e9, 24e9), ("120b", 65.3e9, 80e9)]
)
def test_published_models_fit_their_gpus(
    size: str, weights: float, memory: float, tmp_path: Path
) -> None:
    """With room for a KV cache of 32768 tokens, in bfloat16, all layers counted as if they attended to all of it."""
    sizes = SIZES[size]
    checkpoint = open_checkpoint(make_sparse_checkpoint(tmp_path / "model", sizes))
    config = of_device(checkpoint, DeviceRef.GPU(), 32768)
    assert config.layers.packed
    planner = GptOssMemoryPlanner(config)
    told = planner.estimate_weights_size(UNUSED)
    assert told == pytest.approx(weights, rel=0.01)
    cache = 32768 * sizes.num_hidden_layers * 2 * sizes.num_key_value_heads * 64 * 2
    activations = planner.estimate_activation_memory(prefilling(8192), UNUSED)
    assert activations == ACTIVATION_BYTES
    longer = planner.estimate_activation_memory(prefilling(65536), UNUSED)
    assert longer == 2**28 + 65536 * 80 * 1024
    cut = prefilling(131072, of_each=8192, sequences=1)
    assert planner.estimate_activation_memory(cut, UNUSED) == ACTIVATION_BYTES
    cut = prefilling(131072, of_each=8192, sequences=8)
    assert planner.estimate_activation_memory(cut, UNUSED) == longer
    assert told + activations + cache < memory


def test_a_cpus_memory_is_looked_at_before_max_is_loaded(tmp_path: Path) -> None:
    """MAX, which takes less memory for free than there is, would cut the KV cache short and say so in a log."""
    checkpoint = open_checkpoint(make_sparse_checkpoint(tmp_path / "model", SIZES["20b"]))
    planner = GptOssMemoryPlanner(of_device(checkpoint, DeviceRef.CPU(), 131072))
    assert planner.estimate_activation_memory(prefilling(131072), UNUSED) == ACTIVATION_BYTES


def test_padding_of_packed_experts_is_counted(tmp_path: Path) -> None:
    """96 rows of 96 take two tiles each way."""
    checkpoint = open_checkpoint(
        make_sparse_checkpoint(
            tmp_path / "model",
            dataclasses.replace(
                SIZES["20b"],
                num_hidden_layers=2,
                num_local_experts=4,
                hidden_size=96,
                intermediate_size=96,
            ),
        )
    )
    exact = 3 * 96 * 96 * 17 // 32
    padded = (math.ceil(192 / 64) + math.ceil(96 / 64)) * math.ceil(96 / 64) * 2176
    assert padding_bytes(checkpoint.config) == 2 * 4 * (padded - exact)
