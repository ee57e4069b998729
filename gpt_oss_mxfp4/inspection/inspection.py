"""Inspection: the facts about a checkpoint that its headers and its config tell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import Fault
from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.kinds import KindTotal, total_by_kind
from gpt_oss_mxfp4.checkpoint.layout import BLOCKS, SCALES, Layout, recognise_layout
from gpt_oss_mxfp4.checkpoint.neighbours import Neighbour, list_neighbours
from gpt_oss_mxfp4.checkpoint.survey import Survey
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.footprint import Footprint, footprint

VARIANTS = {(24, 32, 2880, 2880): "20b", (36, 128, 2880, 2880): "120b"}
"""Published models by layers, experts, hidden and inner size."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights.

    Args:
        total: All of them.
        active: Those that a token is multiplied with: its experts, and no embedding, of which it takes a row.
        bits_each: Bits in the file for each, scales counted.
    """

    total: int
    active: int
    bits_each: float


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is and what this package does with it.

    Args:
        name: Its folder or Hub id.
        layout: How its tensors are laid out.
        variant: "20b", "120b" or "other"; None where its config cannot be read.
        config: Its config, or None.
        parameters: Numbers of weights, or None where it does not load.
        kinds: Its tensors by kind.
        files: Bytes of each weight file, by name.
        faults: Why it is refused; none where it runs.
        notes: What lies in its files and is not loaded.
        not_read: What lies beside its files.
        memory: What it takes on each device; none where it does not load.
    """

    name: str
    layout: Layout
    variant: str | None
    config: GptOssConfig | None
    parameters: Parameters | None
    kinds: tuple[KindTotal, ...]
    files: dict[str, int]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    not_read: tuple[Neighbour, ...]
    memory: dict[str, Footprint]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(total.nbytes for total in self.kinds)

    @property
    def loads(self) -> bool:
        """Whether its weights can be read; it may have faults still, no tokenizer say."""
        return self.parameters is not None

    def to_json(self) -> dict[str, Any]:
        """The same facts as JSON takes them; names stay as they are from version to version."""
        return {
            "name": self.name,
            "runs": not self.faults,
            "layout": self.layout.name,
            "variant": self.variant,
            "config": asdict(self.config) if self.config is not None else None,
            "parameters": asdict(self.parameters) if self.parameters is not None else None,
            "files": self.files,
            "bytes": self.nbytes,
            "tensors": [asdict(total) for total in self.kinds],
            "memory": {
                device: {**asdict(taken), "total": taken.total}
                for device, taken in self.memory.items()
            },
            "not_read": [asdict(neighbour) for neighbour in self.not_read],
            "notes": list(self.notes),
            "faults": [asdict(fault) for fault in self.faults],
        }


def inspect_survey(seen: Survey, name: str) -> Inspection:
    """Gathers the facts.

    Args:
        seen: The folder.
        name: What it is called.
    """
    every = [entry for entries in seen.by_file.values() for entry in entries.values()]
    checkpoint = seen.checkpoint
    memory: dict[str, Footprint] = {}
    if checkpoint is not None:
        config, entries = checkpoint.config, checkpoint.entries
        memory = {
            "cpu": footprint(config, entries, "cpu"),
            "gpu": footprint(config, entries, "gpu"),
        }
    return Inspection(
        name=name,
        layout=recognise_layout({entry.name: entry.dtype for entry in every}, seen.fields),
        variant=_variant(seen.config),
        config=seen.config,
        parameters=_parameters(checkpoint.entries.values(), checkpoint.config)
        if checkpoint is not None
        else None,
        kinds=tuple(total_by_kind(every)),
        files={file.name: size for file, size in seen.files.items()},
        faults=seen.faults,
        notes=checkpoint.notes if checkpoint is not None else (),
        not_read=tuple(list_neighbours(seen.folder)),
        memory=memory,
    )


def _variant(config: GptOssConfig | None) -> str | None:
    if config is None:
        return None
    sizes = (
        config.num_hidden_layers,
        config.num_local_experts,
        config.hidden_size,
        config.intermediate_size,
    )
    return VARIANTS.get(sizes, "other")


def _parameters(entries: Iterable[TensorEntry], config: GptOssConfig) -> Parameters:
    total = active = nbytes = 0
    for entry in entries:
        nbytes += entry.nbytes
        if entry.name.endswith(SCALES):
            continue
        weights = math.prod(entry.shape) * (2 if entry.name.endswith(BLOCKS) else 1)
        total += weights
        if ".mlp.experts." in entry.name:
            active += weights * config.num_experts_per_tok // config.num_local_experts
        elif "embed_tokens" not in entry.name or config.tie_word_embeddings:
            active += weights
    return Parameters(total, active, 8 * nbytes / max(total, 1))
