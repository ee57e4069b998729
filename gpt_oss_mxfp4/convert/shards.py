"""Which tensors go to which file, and what stands before their bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpt_oss_mxfp4.checkpoint.index import LENGTH_BYTES
from gpt_oss_mxfp4.convert.plan import Output

SHARD_BYTES = 5_000_000_000
"""Bytes of tensors in a file, unless one tensor alone has more."""

_ALIGNMENT = 8
"""The header is filled up with spaces to a multiple of it, as the safetensors library does."""


@dataclass(frozen=True)
class Shard:
    """A file of the output.

    Args:
        name: its name.
        outputs: its tensors, in the order of their bytes.
    """

    name: str
    outputs: tuple[Output, ...]

    @property
    def header(self) -> bytes:
        """Length and header, as the file begins."""
        fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for output in self.outputs:
            offsets = [position, position + output.nbytes]
            fields[output.name] = {
                "dtype": output.dtype,
                "shape": list(output.shape),
                "data_offsets": offsets,
            }
            position = offsets[1]
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-(LENGTH_BYTES + len(text)) % _ALIGNMENT)
        return len(text).to_bytes(LENGTH_BYTES, "little") + text

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(output.nbytes for output in self.outputs)


def make_shards(outputs: Iterable[Output], limit: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """Deals tensors out to files, in order.

    Args:
        outputs: all tensors.
        limit: bytes of tensors in a file, but for one tensor that alone has more.
    """
    groups = list(_groups(outputs, limit))
    return tuple(
        Shard(f"model-{i:05d}-of-{len(groups):05d}.safetensors", group)
        for i, group in enumerate(groups, start=1)
    )


def index_text(shards: Iterable[Shard]) -> str:
    """The index of these files, as JSON."""
    names = {output.name: shard for shard in shards for output in shard.outputs}
    total = sum(output.nbytes for shard in shards for output in shard.outputs)
    weight_map = {name: names[name].name for name in sorted(names)}
    return (
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"
    )


def _groups(outputs: Iterable[Output], limit: int) -> Iterator[tuple[Output, ...]]:
    group: list[Output] = []
    size = 0
    for output in outputs:
        if group and size + output.nbytes > limit:
            yield tuple(group)
            group, size = [], 0
        group.append(output)
        size += output.nbytes
    if group:
        yield tuple(group)
