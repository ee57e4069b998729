"""The bytes of a source checkpoint, read and not mapped, so that what is held is what was asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import LENGTH_BYTES, TensorEntry
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
        self._fds: dict[Path, int] = {}
        for file in sorted(set(files)):
            try:
                self._fds[file] = os.open(file, os.O_RDONLY)
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
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def read(self, entry: TensorEntry, begin: int, end: int) -> Bytes:
        """Gives bytes of a tensor: ``plan.Read``."""
        data = np.empty(end - begin, np.uint8)
        view, fd = memoryview(data.data), self._fds[entry.file]
        done = 0
        while done < len(view):
            try:
                count = os.preadv(fd, [view[done:]], entry.begin + begin + done)
            except OSError as error:
                raise _unreadable(entry.file, error.strerror or str(error)) from error
            if count == 0:
                raise _unreadable(entry.file, "it became shorter while it was read")
            done += count
        return data

    def identity(self) -> list[dict[str, Any]]:
        """What tells these files from others: names, sizes, times of change, digests of headers."""
        found = []
        for file, fd in self._fds.items():
            status = os.fstat(fd)
            length = int.from_bytes(os.pread(fd, LENGTH_BYTES, 0), "little")
            digest = hashlib.sha256()
            for begin in range(0, length, 2**20):
                digest.update(os.pread(fd, min(2**20, length - begin), LENGTH_BYTES + begin))
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
