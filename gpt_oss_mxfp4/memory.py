"""How much memory the model takes, for MAX to size the KV cache by."""

from __future__ import annotations

from typing import Any

from max.driver import Device
from max.pipelines.kv_cache.memory_planner import PagedMemoryPlanner
from max.pipelines.lib import PipelineConfig

from gpt_oss_mxfp4.footprint import (
    ACTIVATION_BYTES,
    CODE_BYTES,
    GPU_ACTIVATION_BYTES_OF_TOKEN,
    padding_bytes,
)
from gpt_oss_mxfp4.model_config import GptOssArchConfig

PLANNED_BATCH_SIZE = 1
"""Sequences at once on a CPU where MAX's own commands are not told how many: MAX's default fills the memory with KV
cache. ``serve`` always tells it."""


class GptOssMemoryPlanner(PagedMemoryPlanner):
    """Counts the checkpoint's own files and keeps the KV cache on a CPU to what was asked for.

    Args:
        config: the architecture's config.
    """

    _config: GptOssArchConfig

    def estimate_weights_size(self, pipeline_config: PipelineConfig) -> int:
        """Bytes of the files that are read, copies that MAX found beside them left out, and what packing adds.

        None on a CPU: weights are pages of mapped files, which the system reads again where memory is short, and
        what MAX takes for free memory can be much less than there is (NOTES F79).
        """
        if self._config.devices[0].is_cpu():
            return 0
        size = sum(file.stat().st_size for file in self._config.checkpoint.files)
        if self._config.layers.packed:
            size += padding_bytes(self._config.checkpoint.config)
        return size

    def estimate_activation_memory(
        self, pipeline_config: PipelineConfig, huggingface_config: Any
    ) -> int:
        """Bytes beyond weights and KV cache: on a GPU more where more tokens are prefilled in one step.

        On a CPU what is asked for is held against memory before MAX is loaded (``check_memory``).
        """
        if self._config.devices[0].is_cpu():
            return ACTIVATION_BYTES
        runtime = pipeline_config.runtime
        tokens = runtime.max_batch_input_tokens
        if runtime.max_request_input_tokens and runtime.max_batch_size:
            tokens = min(tokens, runtime.max_batch_size * runtime.max_request_input_tokens)
        return max(ACTIVATION_BYTES, CODE_BYTES + tokens * GPU_ACTIVATION_BYTES_OF_TOKEN)

    def infer_max_batch_size(
        self, pipeline_config: PipelineConfig, devices: list[Device], weights_size: int
    ) -> int | None:
        """One sequence at a time on a CPU; on a GPU MAX decides."""
        return PLANNED_BATCH_SIZE if devices[0].is_host else None
