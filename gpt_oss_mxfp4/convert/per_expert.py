"""MXFP4 with a tensor for each expert: how AMD Quark and llm-compressor (compressed-tensors) save gpt-oss.

Codes and scales are those of the published checkpoints, byte for byte: two E2M1 codes a byte, the earlier element
low, and an E8M0 byte for 32 elements of a row. What differs are names and the order of rows (NOTES N57, F56).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.layout import BLOCKS, SCALES
from gpt_oss_mxfp4.checkpoint.schema import TensorSpec
from gpt_oss_mxfp4.convert.plan import Bytes, Output, Piece, Read, computed, copied

GateUp = Literal["halves", "interleaved"]
"""Rows of gate and up, one after the other where they are two tensors: all gates, then all ups; or in turn, as
Hugging Face's layout has them (then ``gate_proj`` is its first half of rows, whatever they are)."""

EXPERT = re.compile(
    r"(model\.layers\.\d+\.mlp\.experts\.)(experts\.)?(\d+)\.(gate_proj|up_proj|gate_up_proj|down_proj)\.(.+)"
)
"""A tensor of one expert: its layer's experts, llm-compressor's extra level, expert, projection, part."""

DROPPED = re.compile(r".+\.(input_scale|output_scale|k_scale|v_scale|k_proj_scale|v_proj_scale)")
"""Scales of activations or of the KV cache, for kernels that round these; the weights mean the same without."""


@dataclass(frozen=True)
class Spelling:
    """How a producer names tensors.

    Args:
        producer: its name.
        codes: last part of the name of a tensor of codes.
        prefix: what stands between ``mlp.experts.`` and an expert's number.
        fused: whether gate and up are one tensor, ``gate_up_proj``.
        gate_up: the order of gate and up rows.
    """

    producer: str
    codes: str
    prefix: str
    fused: bool
    gate_up: GateUp

    @property
    def gate_up_parts(self) -> tuple[str, ...]:
        """The projections that hold gate and up."""
        return ("gate_up_proj",) if self.fused else ("gate_proj", "up_proj")

    def sources(self, name: str, expert: int) -> list[str]:
        """The tensors that hold one expert's part of a tensor of Hugging Face's layout."""
        base, _, projection = name.rpartition(".")
        for ending, part in ((BLOCKS, self.codes), (SCALES, "weight_scale"), ("_bias", "bias")):
            if projection.endswith(ending):
                projection = projection.removesuffix(ending)
                parts = self.gate_up_parts if projection == "gate_up_proj" else (projection,)
                return [f"{base}.{self.prefix}{expert}.{p}.{part}" for p in parts]
        raise ValueError(f"not a tensor of experts: {name}")


def expert_tensors(
    tensors: Mapping[str, TensorSpec], spelling: Spelling
) -> Iterator[tuple[str, TensorSpec]]:
    """The specification of a producer's layout that goes with Hugging Face's, one tensor at a time.

    There may be millions by a config that lies.
    """
    for name, spec in tensors.items():
        if ".mlp.experts." not in name:
            yield name, spec
            continue
        experts, rows = spec.shape[:2]
        if name.endswith(BLOCKS):
            row: tuple[int, ...] = (spec.shape[2] * spec.shape[3],)
        else:
            row = spec.shape[2:]
        for expert in range(experts):
            sources = spelling.sources(name, expert)
            for source in sources:
                yield source, TensorSpec(spec.dtype, (rows // len(sources), *row))


def as_bytes(entry: TensorEntry) -> TensorEntry:
    """A tensor of scales as U8, where a newer file has their own dtype for the same bytes."""
    if entry.dtype == "F8_E8M0" and entry.name.endswith("_scale"):
        return replace(entry, dtype="U8")
    return entry


def from_per_expert(
    tensors: Mapping[str, TensorSpec], entries: Mapping[str, TensorEntry], spelling: Spelling
) -> dict[str, Output]:
    """Plans tensors of Hugging Face's layout from a producer's.

    Args:
        tensors: what is to be made, in order.
        entries: the producer's, from :func:`as_bytes`, checked against :func:`expert_tensors`.
        spelling: how it names them.
    """
    outputs = {}
    for name, spec in tensors.items():
        if ".mlp.experts." in name:
            pieces = tuple(
                _piece(
                    [entries[source] for source in spelling.sources(name, expert)], name, spelling
                )
                for expert in range(spec.shape[0])
            )
        else:
            pieces = (copied(entries[name]),)
        outputs[name] = Output(name, spec.dtype, spec.shape, pieces)
    return outputs


def _piece(sources: list[TensorEntry], name: str, spelling: Spelling) -> Piece:
    """One expert's bytes, rows of gate and up in turn."""
    nbytes = sum(source.nbytes for source in sources)
    rows = sum(source.shape[0] for source in sources)
    in_turn = "gate_up_proj" not in name or spelling.gate_up == "interleaved"

    def function(read: Read) -> Bytes:
        data = np.concatenate([read(source, 0, source.nbytes) for source in sources])
        if in_turn:
            return data
        halves = data.reshape(2, rows // 2, -1)
        return halves.swapaxes(0, 1)

    return computed(nbytes, function)
