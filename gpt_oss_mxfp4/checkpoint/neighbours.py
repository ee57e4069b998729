"""What lies in a checkpoint folder beside the files that are read."""

import os
from dataclasses import dataclass
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.hub import SMALL_FILES
from gpt_oss_mxfp4.checkpoint.layout import is_weight_file

LARGE_BYTES = 2**20
"""Smaller files that are not read (a licence, a picture) are not worth a line, but for code."""

MOST_FILES = 10_000
"""Files of a sub-folder that are counted."""


@dataclass(frozen=True)
class Neighbour:
    """A sub-folder or a file.

    Args:
        name: Of a sub-folder with a ``/`` behind it.
        files: How many files it holds; 1 for a file.
        nbytes: Bytes of all of them.
        remark: What is worth knowing, or nothing.
    """

    name: str
    files: int
    nbytes: int
    remark: str


_REMARKS = {
    "original/": "another copy of the weights, in OpenAI's own layout",
    "metal/": "another copy of the weights, for Metal",
}


def list_neighbours(folder: Path) -> list[Neighbour]:
    """Lists sub-folders, Python files and large files that are never read, by name; links are not followed down."""
    found = []
    try:
        items = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError:
        return []
    for item in items:
        if item.name.startswith(".") or item.name in SMALL_FILES:
            continue
        if item.is_dir(follow_symlinks=False):
            name = f"{item.name}/"
            sizes = _sizes_below(Path(item.path))
            found.append(Neighbour(name, len(sizes), sum(sizes), _REMARKS.get(name, "")))
        elif os.path.isfile(item.path):  # which no link makes raise
            size = os.path.getsize(item.path)
            if item.name.endswith(".py"):
                found.append(Neighbour(item.name, 1, size, "code, which is never run"))
            elif size >= LARGE_BYTES and not is_weight_file(item.name):
                found.append(Neighbour(item.name, 1, size, ""))
    return found


def _sizes_below(folder: Path) -> list[int]:
    sizes: list[int] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                sizes.append(os.path.getsize(path))
            if len(sizes) == MOST_FILES:
                return sizes
    return sizes
