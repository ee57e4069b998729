"""The checksum that the Hub gave a file when it was downloaded, where huggingface_hub noted it down.

It does in two places: a folder filled by ``local_dir`` has ``.cache/huggingface/download/NAME.metadata``
(commit, etag, time, a line each), and a file of its cache is a link to ``blobs/ETAG``. The etag of a
large file is its SHA-256, that of a small one git's SHA-1 of a blob.

Source: huggingface_hub 1.33, ``_local_folder.py`` and ``file_download.py``.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOWNLOADS = Path(".cache", "huggingface", "download")
"""Where a folder filled by ``local_dir`` has its metadata."""

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


def hub_checksum(path: Path) -> Checksum | None:
    """Finds a file's checksum, or None where the Hub's is not known.

    Args:
        path: A file of a checkpoint folder.
    """
    etag = _metadata_etag(path.parent / DOWNLOADS / f"{path.name}.metadata")
    if etag is None and path.is_symlink():
        blob = Path(os.path.realpath(path))
        etag = blob.name if blob.parent.name == "blobs" else None
    return Checksum(etag) if etag is not None and _ETAG.fullmatch(etag) else None


def _metadata_etag(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            lines = stream.read(_MAX_METADATA_BYTES).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return lines[1].strip() if len(lines) >= 2 else None
