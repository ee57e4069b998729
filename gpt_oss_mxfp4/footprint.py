"""How much memory a model takes on a device, by its config and headers; known without MAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE, PACKED_TILE, PACKED_TILE_BYTES
from gpt_oss_mxfp4.options import Activations, rounds_cache

ACTIVATION_BYTES = 2**30
"""Set aside for activations and compiled code; a prefill of 8192 tokens of 20b takes about as much."""

DEFAULT_LENGTH = 8192
"""Tokens of a sequence on a CPU, and of a chat, unless the user asks for another length (``--max-length``): MAX sizes
the KV cache by it, and the model's own 131072 would claim 6.4 GB."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory on one device.

    Args:
        weights: On a CPU the mapped file's, of which pages are dropped where memory is short; on a GPU packed.
        kv_cache: Of ``tokens`` tokens, every layer counted as if it kept them all.
        tables: The table of rotations.
        activations: Set aside for everything else.
        tokens: That the KV cache is for.
    """

    weights: int
    kv_cache: int
    tables: int
    activations: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.tables + self.activations


def footprint(
    config: GptOssConfig,
    entries: Mapping[str, TensorEntry],
    device: Literal["cpu", "gpu"],
    activations: Activations = "bfloat16",
    tokens: int | None = None,
) -> Footprint:
    """Adds up what running a checkpoint takes.

    Args:
        config: Its config.
        entries: The tensors that are loaded.
        device: "cpu" or "gpu", where experts are packed for Hopper.
        activations: What inputs of matmuls are rounded to on a CPU; with "float32" the KV cache is float32, too.
        tokens: That the KV cache is for, or None for one sequence of the default length.
    """
    cache_itemsize = 2 if rounds_cache(activations, on_cpu=device == "cpu") else 4
    table_itemsize = 4 if device == "cpu" else 2  # in the graph's dtype
    if tokens is None:
        tokens = default_length(config.max_position_embeddings)
    row = 2 * config.num_key_value_heads * config.head_dim * cache_itemsize
    weights = sum(entry.nbytes for entry in entries.values())
    return Footprint(
        weights=weights + (padding_bytes(config) if device == "gpu" else 0),
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
