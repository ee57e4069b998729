"""What a conversion makes: tensors as lists of pieces, each a pure recipe from bytes of the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.index import DTYPE_BITS, TensorEntry

CHUNK_BYTES = 16 * 1024 * 1024
"""What is copied at once."""

Bytes = NDArray[np.uint8]

Read = Callable[[TensorEntry, int, int], Bytes]
"""Gives the bytes of a source tensor from one offset within it to another, [end - begin] uint8."""


@dataclass(frozen=True)
class Piece:
    """Bytes that follow one another in a tensor of the output.

    Args:
        nbytes: how many.
        make: gives them, in chunks of any size, from the source; the same each time it is called.
    """

    nbytes: int
    make: Callable[[Read], Iterator[Bytes]]


@dataclass(frozen=True)
class Output:
    """A tensor of the output.

    Args:
        name: its name there.
        dtype: its safetensors dtype.
        shape: its shape in elements.
        pieces: its bytes, in order. Tensors of experts have a piece for each expert.
        loss: where it is a rounding of the source, says what was lost, once all pieces were made.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    loss: Callable[[], Mapping[str, float]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor by its shape, which those of its pieces sum to."""
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


def copied(entry: TensorEntry, begin: int = 0, end: int | None = None) -> Piece:
    """A piece that is bytes ``begin`` to ``end`` of a source tensor, all unless given."""
    stop = entry.nbytes if end is None else end

    def make(read: Read) -> Iterator[Bytes]:
        for position in range(begin, stop, CHUNK_BYTES):
            yield read(entry, position, min(position + CHUNK_BYTES, stop))

    return Piece(stop - begin, make)


def computed(nbytes: int, function: Callable[[Read], NDArray[np.generic]]) -> Piece:
    """A piece that is the bytes of an array, which ``function`` makes from the source."""

    def make(read: Read) -> Iterator[Bytes]:
        yield np.ascontiguousarray(function(read)).reshape(-1).view(np.uint8)

    return Piece(nbytes, make)


def gathered(piece: Piece, read: Read) -> Bytes:
    """All bytes of a piece in one array, [nbytes] uint8."""
    chunks = list(piece.make(read))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks or [np.empty(0, np.uint8)])


def split(entry: TensorEntry, parts: int) -> tuple[Piece, ...]:
    """The pieces of a tensor that is copied, its first axis cut into equal parts."""
    step = entry.nbytes // parts
    return tuple(copied(entry, i * step, (i + 1) * step) for i in range(parts))
