"""How much memory a model takes on a device, by its config and headers; known without MAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.kinds import is_rounded
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE, PACKED_TILE, PACKED_TILE_BYTES
from gpt_oss_mxfp4.options import Activations, DenseWeights, rounds_cache

PREFILL_TOKENS = {"cpu": 1024, "gpu": 8192}
"""Tokens that are prefilled in one step, of all prompts together: on a GPU MAX's default (NOTES N120)."""

ACTIVATION_BYTES = 2**30
"""Set aside for activations and compiled code, of which compiling takes more than running, for a while."""

CODE_BYTES = 2**28
"""Of compiled code, MAX and Python."""

GPU_ACTIVATION_BYTES_OF_TOKEN = 80 * 2**10
"""Of a token that is prefilled, in bfloat16: half of what gpt-oss's takes on a CPU (NOTES F83)."""

DEFAULT_LENGTH = 8192
"""Tokens of a sequence on a CPU, and of a chat, unless the user asks for another length (``--max-length``): MAX sizes
the KV cache by it, and the model's own 131072 would claim 6.4 GB."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory on one device.

    Args:
        weights: On a CPU the mapped file's, of which pages are dropped where memory is short; on a GPU packed.
        rounded: Weights that are rounded while they are loaded, and are in memory alone.
        kv_cache: Of ``tokens`` tokens, every layer counted as if it kept them all.
        tables: The table of rotations.
        activations: Set aside for everything else.
        tokens: That the KV cache is for.
    """

    weights: int
    rounded: int
    kv_cache: int
    tables: int
    activations: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.rounded + self.kv_cache + self.tables + self.activations


def footprint(
    config: GptOssConfig,
    entries: Mapping[str, TensorEntry],
    device: Literal["cpu", "gpu"],
    activations: Activations = "bfloat16",
    dense_weights: DenseWeights = "bfloat16",
    tokens: int | None = None,
) -> Footprint:
    """Adds up what running a checkpoint takes.

    Args:
        config: Its config.
        entries: The tensors that are loaded.
        device: "cpu" or "gpu", where experts are packed for Hopper.
        activations: What inputs of matmuls are rounded to on a CPU; with "float32" the KV cache is float32, too.
        dense_weights: What the weights of attention and of the logits are rounded to on a CPU.
        tokens: That the KV cache is for, or None for one sequence of the default length.
    """
    cache_itemsize = 2 if rounds_cache(activations, on_cpu=device == "cpu") else 4
    table_itemsize = 4 if device == "cpu" else 2  # in the graph's dtype
    if tokens is None:
        tokens = default_length(config.max_position_embeddings)
    row = 2 * config.num_key_value_heads * config.head_dim * cache_itemsize
    dense = 0
    if device == "cpu" and dense_weights != "bfloat16":
        dense = sum(entry.nbytes for name, entry in entries.items() if is_rounded(name))
    weights = sum(entry.nbytes for entry in entries.values()) - dense
    # One of BF16's two bytes, and a scale to each group: a bfloat16, or OCP's byte.
    scale_bytes = 2 if dense_weights == "int8" else 1
    return Footprint(
        weights=weights + (padding_bytes(config) if device == "gpu" else 0),
        rounded=dense // 2 + dense // 2 // GROUP_SIZE * scale_bytes,
        kv_cache=tokens * config.num_hidden_layers * row,
        tables=config.max_position_embeddings * config.head_dim * table_itemsize,
        activations=ACTIVATION_BYTES,
        tokens=tokens,
    )


def default_length(positions: int) -> int:
    """Returns the tokens of a sequence where no length is asked for, of a model of so many positions."""
    return min(DEFAULT_LENGTH, positions)


def padding_bytes(config: GptOssConfig) -> int:
    """Returns what experts take more when they are packed: nothing where sizes are multiples of 64, as in gpt-oss."""
    return sum(
        config.num_hidden_layers
        * config.num_local_experts
        * (_tiles(n) * _tiles(k) * PACKED_TILE_BYTES - n * k // GROUP_SIZE * (BYTES_PER_GROUP + 1))
        for n, k in config.expert_shapes
    )


def _tiles(n: int) -> int:
    return -(-n // PACKED_TILE)
