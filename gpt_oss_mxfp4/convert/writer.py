"""Files of the output, written from beginning to end and read back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import read_header
from gpt_oss_mxfp4.convert.journal import Journal
from gpt_oss_mxfp4.convert.plan import CHUNK_BYTES, Read
from gpt_oss_mxfp4.convert.shards import Shard

Advance = Callable[[int], None]
"""Is told of bytes as they are done."""

_SYNC_BYTES = 256 * 1024 * 1024
"""Bytes after which the disk is waited for: memory is not to fill with what it has yet to write."""


def write_shard(shard: Shard, read: Read, journal: Journal, advance: Advance) -> None:
    """Writes a file under a temporary name, and records it once it is on the disk under its own.

    Args:
        shard: the file.
        read: gives bytes of the source.
        journal: of this conversion.
        advance: told of the bytes written.

    Raises:
        OSError: it cannot be written; nothing of it is left.
        CheckpointError: the source is not what can be converted.
    """
    place = journal.files / shard.name
    temporary = place.with_suffix(".part")
    try:
        with temporary.open("wb", buffering=0) as stream:
            digests = _write(stream, shard, read, advance)
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.rename(place)
    losses = {output.name: dict(output.loss()) for output in shard.outputs if output.loss}
    journal.add(shard.name, {"digests": digests, "losses": losses})


def verify_shard(shard: Shard, journal: Journal, advance: Advance) -> None:
    """Reads a file back: its header, by the loader's own reader, and every byte against its digest.

    Args:
        shard: the file.
        journal: of this conversion.
        advance: told of the bytes read.

    Raises:
        CheckpointError: it is not what was written; it is no longer recorded, so another run writes it again.
    """
    cure = "Check the disk and the memory of this machine, and run the command again: it goes on from here"
    try:
        _check_shard(journal.files, shard, journal, advance, cure)
    except CheckpointError:
        journal.drop(shard.name)
        raise


def verify_in_place(shards: Iterable[Shard], journal: Journal, advance: Advance) -> None:
    """Reads an output back that an earlier run put in its place; nothing of it is removed.

    Args:
        shards: its files with weights.
        journal: of this conversion.
        advance: told of the bytes read.

    Raises:
        CheckpointError: a file is not what was written.
    """
    for shard in shards:
        cure = f"Remove {journal.output} and run the command again"
        _check_shard(journal.output, shard, journal, advance, cure)


def _check_shard(folder: Path, shard: Shard, journal: Journal, advance: Advance, cure: str) -> None:
    try:
        digests = journal.shards[shard.name]["digests"]
        wrong = _find_difference(folder / shard.name, shard, digests, advance)
    except (CheckpointError, OSError) as error:
        wrong = f"the file ({error})"
    if wrong is not None:
        text = f"{wrong} must read back as it was written, does not"
        raise CheckpointError(shard.name, [Fault("not what was written", text, cure)])


def _find_difference(
    place: Path, shard: Shard, digests: Mapping[str, str], advance: Advance
) -> str | None:
    """The first tensor of a file that is not what was written, or what else is not; None where all is."""
    entries = read_header(place)
    planned = [(output.name, output.dtype, output.shape) for output in shard.outputs]
    if planned != [(entry.name, entry.dtype, entry.shape) for entry in entries.values()]:
        return "the header"
    advance(len(shard.header))
    with place.open("rb", buffering=0) as stream:
        _forget(stream.fileno())
        for entry in entries.values():
            digest = hashlib.blake2b(digest_size=32)
            position = entry.begin
            # A read may give fewer bytes than it was asked for.
            while chunk := os.pread(
                stream.fileno(), min(CHUNK_BYTES, entry.end - position), position
            ):
                digest.update(chunk)
                advance(len(chunk))
                position += len(chunk)
            if digest.hexdigest() != digests.get(entry.name):
                return entry.name
    return None


def _write(stream: BinaryIO, shard: Shard, read: Read, advance: Advance) -> dict[str, str]:
    digests = {}
    since_sync = 0
    _write_all(stream, shard.header)
    advance(len(shard.header))
    for output in shard.outputs:
        digest = hashlib.blake2b(digest_size=32)
        written = 0
        for piece in output.pieces:
            for chunk in piece.make(read):
                digest.update(chunk.data)
                _write_all(stream, chunk.data)
                advance(chunk.nbytes)
                written += chunk.nbytes
                since_sync += chunk.nbytes
                if since_sync >= _SYNC_BYTES:
                    os.fsync(stream.fileno())
                    since_sync = 0
        if written != output.nbytes:
            raise AssertionError(f"{output.name}: planned {output.nbytes} bytes, made {written}")
        digests[output.name] = digest.hexdigest()
    return digests


def _write_all(stream: BinaryIO, data: Any) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def _forget(fd: int) -> None:
    """Lets the system drop what it holds of a file in memory, so that it is read from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
