"""How much memory the model takes, for MAX to size the KV cache by."""

from __future__ import annotations

import math
from typing import Any

from max.driver import Device
from max.pipelines.kv_cache.memory_planner import PagedMemoryPlanner
from max.pipelines.lib import PipelineConfig

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.model_config import GptOssArchConfig
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE
from gpt_oss_mxfp4.ops.mxfp4 import packed_shape

ACTIVATION_BYTES = 2**30
"""Set aside for activations and compiled code; a prefill of 8192 tokens of 20b takes about as much."""

CPU_BATCH_SIZE = 1
"""Sequences at once unless the user asks for more: MAX's own default fills the memory with KV cache."""


class GptOssMemoryPlanner(PagedMemoryPlanner):
    """Counts the checkpoint's own files and keeps the KV cache on a CPU to what was asked for.

    Args:
        config: the architecture's config.
    """

    _config: GptOssArchConfig

    def estimate_weights_size(self, pipeline_config: PipelineConfig) -> int:
        """Bytes of the files that are read, copies that MAX found beside them left out, and what packing adds."""
        size = sum(file.stat().st_size for file in self._config.checkpoint.files)
        if self._config.layers.packed:
            size += padding_bytes(self._config.checkpoint.config)
        return size

    def estimate_activation_memory(
        self, pipeline_config: PipelineConfig, huggingface_config: Any
    ) -> int:
        """Bytes beyond weights and KV cache."""
        return ACTIVATION_BYTES

    def infer_max_batch_size(
        self, pipeline_config: PipelineConfig, devices: list[Device], weights_size: int
    ) -> int | None:
        """One sequence at a time on a CPU; on a GPU MAX decides."""
        return CPU_BATCH_SIZE if devices[0].is_host else None


def padding_bytes(config: GptOssConfig) -> int:
    """Returns what experts take more when they are packed: nothing where sizes are multiples of 64, as in gpt-oss."""
    return sum(
        config.num_hidden_layers
        * config.num_local_experts
        * (math.prod(map(int, packed_shape(n, k))) - n * k // GROUP_SIZE * (BYTES_PER_GROUP + 1))
        for n, k in config.expert_shapes
    )
