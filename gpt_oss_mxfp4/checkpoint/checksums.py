"""Checksums of files, and the one that the Hub gave a file, where huggingface_hub noted it down.

It does in two places: a folder filled by ``local_dir`` has ``.cache/huggingface/download/NAME.metadata``
(commit, etag, time, a line each), and a file of its cache is a link to ``blobs/ETAG``. The etag of a
large file is its SHA-256, that of a small one git's SHA-1 of a blob.

Source: huggingface_hub 1.33, ``_local_folder.py`` and ``file_download.py``.
"""

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOWNLOADS = Path(".cache", "huggingface", "download")
"""Where a folder filled by ``local_dir`` has its metadata."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_MAX_METADATA_BYTES = 4096


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must hash to.

    Args:
        digest: 64 hexadecimal digits of SHA-256, or 40 of the SHA-1 that git gives a blob.
    """

    digest: str

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return "SHA-256" if len(self.digest) == 64 else "git SHA-1"

    def hasher(self, nbytes: int) -> Any:
        """A hashlib object that takes the bytes of a file of ``nbytes``."""
        if len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % nbytes, usedforsecurity=False)

    def is_of(self, path: Path) -> bool:
        """Whether a file's bytes hash to it."""
        if len(self.digest) == 64:
            return file_sha256(path) == self.digest
        hasher = self.hasher(path.stat().st_size)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hasher).hexdigest() == self.digest


@dataclass(frozen=True)
class Note:
    """What huggingface_hub noted down of a file that it put into a folder.

    Args:
        commit: The one that the file came from.
        checksum: What the Hub gave.
        time: When it was noted down, in seconds as ``st_mtime`` has them.
    """

    commit: str
    checksum: Checksum
    time: float


_HASHED: dict[tuple[Path, int, int, int], str] = {}
"""SHA-256 of files, as long as they are what they were."""


def file_sha256(path: Path) -> str:
    """Hashes a file, once in a process while it stays as it is."""
    status = path.stat()
    key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _HASHED:
        with path.open("rb") as stream:
            _HASHED[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _HASHED[key]


def hub_checksum(path: Path) -> Checksum | None:
    """Finds a file's checksum, or None where the Hub's is not known.

    Args:
        path: A file of a checkpoint folder.
    """
    note = read_note(path)
    if note is not None:
        return note.checksum
    blob = Path(os.path.realpath(path))
    named = path.is_symlink() and blob.parent.name == "blobs" and _ETAG.fullmatch(blob.name)
    return Checksum(blob.name) if named else None


def note_path(path: Path) -> Path:
    """Where huggingface_hub notes down what it knows of a file of a folder."""
    return path.parent / DOWNLOADS / f"{path.name}.metadata"


def write_note(path: Path, commit: str, checksum: Checksum) -> None:
    """Notes down what a file of a folder is, as huggingface_hub does.

    Args:
        path: The file, in its place.
        commit: The one that it came from.
        checksum: Its own.
    """
    note_path(path).write_text(f"{commit}\n{checksum.digest}\n{time.time()}\n")


def read_note(path: Path) -> Note | None:
    """Reads what huggingface_hub noted down of a file, or None where that is nothing sound.

    Args:
        path: A file of a checkpoint folder.
    """
    try:
        if not note_path(path).is_file():
            return None
        with note_path(path).open("rb") as stream:
            text = stream.read(_MAX_METADATA_BYTES).decode("ascii")
        commit, etag, noted = map(str.strip, text.splitlines())
        seconds = float(noted)
    except (OSError, ValueError):
        return None
    sound = _COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)
    return Note(commit, Checksum(etag), seconds) if sound else None
