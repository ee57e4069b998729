"""A hollow copy of a repository: its headers and small files, and holes of the right size for all else.

What looks at a folder without reading weights sees no difference, and nothing needs to know that
there is a network.
"""

from __future__ import annotations

from pathlib import Path

from gpt_oss_mxfp4.checkpoint.bounds import check_count, check_headers
from gpt_oss_mxfp4.checkpoint.index import LENGTH_BYTES, MAX_HEADER_BYTES
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, INDEX_FILE
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository
from gpt_oss_mxfp4.checkpoint.strict_json import MAX_FILE_BYTES

FIRST_BYTES = 2**16
"""Asked for at once: headers of published shards are 10 to 60 kB."""


def make_hollow(repository: Repository, folder: Path) -> None:
    """Fetches headers, config.json and the index; a hole takes no space.

    Args:
        repository: What to copy.
        folder: An empty folder.

    Raises:
        CheckpointError: If there are more headers than are looked at.
        OSError: If a file cannot be made, or as ``Repository.read`` does.
    """
    weights = [file for file in repository.files.values() if file.is_weights]
    check_count(repository.hub_id, len(weights))
    headers = 0
    for file in repository.files.values():
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for piece in _pieces(repository, file):
                stream.write(piece)
            if file.is_weights:
                headers += stream.tell()
                check_headers(repository.hub_id, headers)
            stream.truncate(file.nbytes)


def _pieces(repository: Repository, file: HubFile) -> list[bytes]:
    """The bytes of a file that are looked at, from its first."""
    if file.name in (CONFIG_FILE, INDEX_FILE):
        return list(repository.read(file.name, 0, min(file.nbytes, MAX_FILE_BYTES + 1)))
    if not file.is_weights:
        return []
    first = b"".join(repository.read(file.name, 0, min(file.nbytes, FIRST_BYTES)))
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    end = LENGTH_BYTES + length
    if len(first) < LENGTH_BYTES or length > MAX_HEADER_BYTES or end > file.nbytes:
        return [first]  # whoever reads the header says what is wrong with it
    if end <= len(first):
        return [first[:end]]
    return [first, *repository.read(file.name, len(first), end)]
