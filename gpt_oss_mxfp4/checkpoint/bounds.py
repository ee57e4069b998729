"""How much of a folder or a repository is looked at: each file's header is bounded, and so are all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import LENGTH_BYTES, MAX_HEADER_BYTES

MAX_FILES = 1000
"""Weight files that are opened; gpt-oss-120b has 15."""

MAX_ALL_HEADERS_BYTES = 64 * 1024 * 1024
"""Bytes of all headers that are read; gpt-oss-120b with a tensor for each expert has about 6 MB of them."""

_CURE = "No gpt-oss has so much: leave only the model's own *.safetensors files there"


def bounded(where: str | Path, files: list[Path]) -> list[Path]:
    """Gives files back whose headers may all be read.

    Args:
        where: What an error calls their folder.
        files: Weight files.

    Raises:
        CheckpointError: If they, or the bytes of their headers, are too many.
    """
    check_count(where, len(files))
    check_headers(where, sum(_header_bytes(files)))
    return files


def check_count(where: str | Path, count: int) -> None:
    """Refuses a folder or a repository with too many weight files."""
    if count > MAX_FILES:
        text = f"must have at most {MAX_FILES} *.safetensors files, has {count}"
        raise CheckpointError(where, [Fault("too many files", text, _CURE)])


def check_headers(where: str | Path, nbytes: int) -> None:
    """Refuses a folder or a repository whose headers are too large together."""
    if nbytes > MAX_ALL_HEADERS_BYTES:
        text = (
            f"must have at most {MAX_ALL_HEADERS_BYTES} bytes of headers in all *.safetensors files"
            f" together, has {nbytes} or more"
        )
        raise CheckpointError(where, [Fault("too long headers", text, _CURE)])


def _header_bytes(files: Iterable[Path]) -> Iterable[int]:
    """Lengths of the headers that will be read; what is wrong with the others their reader says."""
    for file in files:
        try:
            with file.open("rb", buffering=0) as stream:
                length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
                if length <= min(MAX_HEADER_BYTES, stream.seek(0, 2)):
                    yield length
        except OSError:
            continue
