"""The index of a checkpoint: which tensor it says is in which file. A claim, to be held against the headers."""

import os
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.layout import INDEX_FILE, is_weight_file
from gpt_oss_mxfp4.checkpoint.strict_json import read_object

DOWNLOAD_AGAIN = "The download is incomplete or mixed: download the checkpoint again"
"""The cure where files of a checkpoint do not belong together."""


def index_files(folder: Path) -> dict[str, str]:
    """What the folder's index says.

    Args:
        folder: A checkpoint folder, its weights not necessarily there yet.

    Returns:
        File by tensor name, none where there is no index.

    Raises:
        CheckpointError: If the index is no sound one.
    """
    path = folder / INDEX_FILE
    return _weight_map(path) if path.is_file() else {}


def read_index(folder: Path, files: list[Path]) -> dict[str, str]:
    """The claims of the folder's index, empty where it has none; every file it names is there."""
    path = folder / INDEX_FILE
    if not os.path.isfile(path):  # which no path makes raise
        if os.path.lexists(path):  # a dangling link, say: an index that is there is not passed over
            fault = Fault("bad index", "must be a file, is none", DOWNLOAD_AGAIN)
            raise CheckpointError(path, [fault])
        return {}
    claims = _weight_map(path)
    missing = set(claims.values()) - {file.name for file in files}
    if missing:
        raise CheckpointError(folder, map(missing_shard, missing))
    return claims


def missing_shard(name: str) -> Fault:
    """The fault of a weight file that is not there."""
    text = f"{quoted(name)} must be in the folder, is missing"
    return Fault("missing shard", text, DOWNLOAD_AGAIN)


def _weight_map(path: Path) -> dict[str, str]:
    """The index's claims, tensor name -> file name, checked to name files of this folder only."""
    weights = read_object(path).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        fault = Fault("bad index", "weight_map must be an object, not empty", DOWNLOAD_AGAIN)
        raise CheckpointError(path, [fault])
    faults = []
    for file in {str(file): file for file in weights.values()}.values():
        sound = isinstance(file, str) and is_weight_file(file) and file.isprintable()
        if not sound or "\\" in file:
            rule = "weight_map must name *.safetensors files of its own folder"
            faults.append(Fault("bad index", f"{rule}, got {quoted(file)}", DOWNLOAD_AGAIN))
    if faults:
        raise CheckpointError(path, faults)
    return weights
