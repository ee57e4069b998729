"""The bytes of a source checkpoint, read and not mapped, so that what is held is what was asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import LENGTH_BYTES, MAX_HEADER_BYTES, TensorEntry, fill
from gpt_oss_mxfp4.convert.plan import Bytes

_CURE = "Let nothing write to the checkpoint while it is converted, and run the command again"


class Source:
    """Open files of a checkpoint.

    Args:
        files: those that hold its tensors.

    Raises:
        CheckpointError: one cannot be opened.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._streams: dict[Path, FileIO] = {}
        for file in sorted(set(files)):
            try:
                self._streams[file] = FileIO(file)
            except OSError as error:
                self.close()
                raise _unreadable(file, error.strerror or str(error)) from error

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files."""
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for stream in self._streams.values():
            stream.close()

    def read(self, entry: TensorEntry, begin: int, end: int) -> Bytes:
        """Gives bytes of a tensor: ``plan.Read``."""
        data = np.empty(end - begin, np.uint8)
        stream = self._streams[entry.file]
        try:
            stream.seek(entry.begin + begin)
            if not fill(stream, data.data):
                raise _unreadable(entry.file, "it became shorter while it was read")
        except OSError as error:
            raise _unreadable(entry.file, error.strerror or str(error)) from error
        return data

    def identity(self) -> list[dict[str, Any]]:
        """What tells these files from others: names, sizes, times of change, digests of headers.

        Raises:
            CheckpointError: one cannot be read.
        """
        found = []
        for file, stream in self._streams.items():
            try:
                status = os.fstat(stream.fileno())
                stream.seek(0)
                length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
                # It was written to where it is longer than when its header was read.
                digest = hashlib.sha256(stream.read(min(length, MAX_HEADER_BYTES)))
            except OSError as error:
                raise _unreadable(file, error.strerror or str(error)) from error
            found.append(
                {
                    "file": file.name,
                    "bytes": status.st_size,
                    "mtime_ns": status.st_mtime_ns,
                    "header": digest.hexdigest(),
                }
            )
        return found


def _unreadable(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(file, [Fault("unreadable file", f"cannot be read ({reason})", _CURE)])
