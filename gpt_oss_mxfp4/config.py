"""config.json -> a frozen, checked GptOssConfig. What would be computed wrongly is refused here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.fields import Fields, shown
from gpt_oss_mxfp4.checkpoint.layout import CONVERT
from gpt_oss_mxfp4.checkpoint.strict_json import read_object
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE

SLIDING = "sliding_attention"
FULL = "full_attention"

_CURE = "Compare it with the config.json of openai/gpt-oss-20b"

MAX_POSITIONS = 2**22
"""Most positions believed, 32 times those of gpt-oss: the table of rotations has a row for each, 1 GB then."""

_LARGEST = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 4096,
    "sliding_window": 2**31 - 1,
    "num_local_experts": 4096,
    "num_experts_per_tok": 4096,
    "max_position_embeddings": MAX_POSITIONS,
}
"""Largest value believed of each size: a hostile config must not cost memory."""

_FIXED: tuple[tuple[str, Any, str], ...] = (
    ("model_type", "gpt_oss", "the graph is that of gpt-oss"),
    ("hidden_act", "silu", "the experts have no other activation"),
    ("attention_bias", True, "the graph adds the biases of q, k, v and o"),
    ("swiglu_alpha", 1.702, "the kernels hold it as a constant"),
)
"""Keys that may be left out but, where given, have the one value the graph computes; and why."""


@dataclass(frozen=True)
class YarnRope:
    """Rotary position embedding with YaRN scaling.

    Args:
        theta: Base of the frequencies.
        factor: How far the context was stretched.
        beta_fast: Rotations within the original context above which a frequency is kept.
        beta_slow: Rotations below which a frequency is divided by ``factor``.
        original_max_position_embeddings: Context length before stretching, in tokens.
        truncate: Whether the ends of the ramp between the two are rounded to whole dimensions.
        attention_factor: What multiplies cos and sin: the config's, else 0.1 ln(factor) + 1.
    """

    theta: float
    factor: float
    beta_fast: float
    beta_slow: float
    original_max_position_embeddings: int
    truncate: bool
    attention_factor: float


@dataclass(frozen=True)
class GptOssConfig:
    """The model's sizes and constants, every one checked. Fields have the names of config.json.

    ``head_dim`` is the config's own: hidden_size / num_attention_heads is 45 for gpt-oss-20b and
    wrong. ``layer_types`` holds one of SLIDING and FULL per layer. ``eos_token_ids`` is empty where
    the config has none.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int
    layer_types: tuple[str, ...]
    rms_norm_eps: float
    num_local_experts: int
    num_experts_per_tok: int
    swiglu_limit: float
    rope: YarnRope
    max_position_embeddings: int
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]

    @property
    def expert_shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and elements of a row of an expert's gate_up and down projections."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return (2 * inner, hidden), (hidden, inner)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads and checks a config.json.

        Args:
            path: The file.

        Returns:
            The config.

        Raises:
            CheckpointError: If it is absent or no JSON object, or as ``from_dict`` does.
        """
        return cls.from_dict(read_object(path), where=path)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str | Path = "config.json") -> Self:
        """Checks the fields of a config.json, both as published and as transformers 5 writes them.

        Args:
            fields: The JSON object. Keys that do not bear on the computation are ignored.
            where: What the error calls the source.

        Returns:
            The config.

        Raises:
            CheckpointError: If any field is missing, absurd or unsupported: all in one error.

        Source: keys and defaults are those of transformers 5.12.1, models/gpt_oss.
        """
        faults: list[Fault] = []
        reader = Fields(fields, _CURE, faults)
        for key, wanted, reason in _FIXED:
            reader.fixed(key, wanted, reason)
        _check_quantization(reader)
        size = {key: reader.size(key, largest) for key, largest in _LARGEST.items()}
        config = cls(
            **size,
            layer_types=_layer_types(reader, size["num_hidden_layers"]),
            rms_norm_eps=reader.number("rms_norm_eps"),
            swiglu_limit=reader.number("swiglu_limit", default=7.0),
            rope=_rope(reader),
            tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
            eos_token_ids=_token_ids(reader, "eos_token_id"),
        )
        # Rules between fields mean something only once each field is sound by itself.
        if not faults:
            _check_together(config, reader)
        if faults:
            raise CheckpointError(where, faults)
        return config


def _check_quantization(reader: Fields) -> None:
    given = reader.get("quantization_config")
    if given is None:  # then the tensors decide: packed experts speak for themselves
        return
    if not isinstance(given, dict):
        reader.refuse(f"quantization_config must be an object, got {shown(given)}")
    elif (method := given.get("quant_method")) != "mxfp4":
        cure = (
            "Use openai/gpt-oss-20b, openai/gpt-oss-120b or another repository with MXFP4 experts"
        )
        if method in ("quark", "compressed-tensors"):
            cure = f"Convert it: {CONVERT}"
        reader.refuse(
            f'quantization_config.quant_method must be "mxfp4", got {shown(method)}:'
            " this package runs no other format",
            cure,
        )


def _layer_types(reader: Fields, num_layers: int) -> tuple[str, ...]:
    value = reader.get("layer_types")
    if value is None:
        return tuple(FULL if layer % 2 else SLIDING for layer in range(num_layers))
    if not isinstance(value, list) or not all(kind in (SLIDING, FULL) for kind in value):
        reader.refuse(f"layer_types must be a list of {SLIDING} and {FULL}, got {shown(value)}")
        return ()
    if len(value) != num_layers:
        rule = f"layer_types must have num_hidden_layers = {num_layers} items"
        reader.refuse(f"{rule}, got {len(value)}")
    return tuple(value)


def _token_ids(reader: Fields, key: str) -> tuple[int, ...]:
    value = reader.get(key, default=[])
    ids = value if isinstance(value, list) else [value]
    if all(type(token) is int and token >= 0 for token in ids):
        return tuple(ids)
    reader.refuse(f"{key} must be a token id, a list of them or null, got {shown(value)}")
    return ()


def _rope(reader: Fields) -> YarnRope:
    """Either spelling: ``rope_scaling`` beside ``rope_theta``, or ``rope_parameters`` with both."""
    given = [reader.get(key) for key in ("rope_parameters", "rope_scaling")]
    given = [value for value in given if value is not None]
    if not given or not all(isinstance(value, dict) for value in given):
        reader.refuse(
            "rope_parameters (or rope_scaling) must be an object,"
            f" got {shown(given[0] if given else None)}"
        )
        return YarnRope(1.0, 1.0, 1.0, 1.0, 1, False, 1.0)
    outside = reader.get("rope_theta")
    first, *second = [{"rope_theta": outside, **value} for value in given]
    if second and second != [first]:
        reader.refuse("rope_parameters and rope_scaling must be equal where both are given")
    rope = Fields(first, reader.cure, reader.faults)
    if outside is not None and rope.get("rope_theta") != outside:
        inside = shown(rope.get("rope_theta"))
        reader.refuse(f"rope_theta must be one number, got {shown(outside)} and {inside}")

    kind = rope.get("rope_type", rope.get("type"))
    if kind != "yarn":
        rope.refuse(f'rope_type must be "yarn", got {shown(kind)}: the graph has no other')
    rope.fixed("partial_rotary_factor", 1.0, "the graph turns the whole head")
    for key in ("mscale", "mscale_all_dim"):  # together they change attention_factor even at 1.0
        if (value := rope.get(key)) is not None:
            rope.refuse(f"{key} must be left out, got {shown(value)}: the graph has no such term")
    factor = rope.number("factor")
    return YarnRope(
        theta=rope.number("rope_theta"),
        factor=factor,
        beta_fast=rope.number("beta_fast", default=32.0),
        beta_slow=rope.number("beta_slow", default=1.0),
        original_max_position_embeddings=rope.size(
            "original_max_position_embeddings", MAX_POSITIONS
        ),
        truncate=rope.flag("truncate", default=True),
        attention_factor=rope.number(
            "attention_factor", default=0.1 * math.log(max(factor, 1.0)) + 1.0
        ),
    )


def _check_together(config: GptOssConfig, reader: Fields) -> None:
    for key in ("hidden_size", "intermediate_size"):
        if getattr(config, key) % GROUP_SIZE:
            reader.refuse(
                f"{key} must be a multiple of {GROUP_SIZE}, got {getattr(config, key)}:"
                f" one MXFP4 scale covers {GROUP_SIZE} elements",
                "MXFP4 weights of such a size cannot exist: take the config that belongs to them",
            )
    if config.num_attention_heads % config.num_key_value_heads:
        reader.refuse(
            f"num_attention_heads must be a multiple of num_key_value_heads ="
            f" {config.num_key_value_heads}, got {config.num_attention_heads}"
        )
    if config.head_dim % 2:
        reader.refuse(f"head_dim must be even, got {config.head_dim}: RoPE rotates pairs")
    if config.num_experts_per_tok > config.num_local_experts:
        reader.refuse(
            f"num_experts_per_tok must be at most num_local_experts ="
            f" {config.num_local_experts}, got {config.num_experts_per_tok}"
        )
    if any(token >= config.vocab_size for token in config.eos_token_ids):
        reader.refuse(
            f"eos_token_id must be below vocab_size = {config.vocab_size},"
            f" got {max(config.eos_token_ids)}"
        )
    rope = config.rope
    if rope.theta <= 1 or rope.factor < 1 or rope.beta_fast <= rope.beta_slow:
        reader.refuse(
            "rope must have rope_theta > 1, factor >= 1 and beta_fast > beta_slow,"
            f" got {rope.theta:g}, {rope.factor:g}, {rope.beta_fast:g} and {rope.beta_slow:g}"
        )
