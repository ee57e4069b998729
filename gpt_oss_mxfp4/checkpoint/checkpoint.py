"""open_checkpoint: a folder's files and tensors, found, counted and checked from headers alone.

Every ``*.safetensors`` file directly in the folder counts; sub-folders (``original/``, ``metal/``)
never do. An index is a claim about those files and is checked, not trusted: what is loaded follows
from the headers.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.bounds import bounded
from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.index import TensorEntry, read_header
from gpt_oss_mxfp4.checkpoint.layout import (
    CONFIG_FILE,
    INDEX_FILE,
    PUBLISHED,
    check_layout,
    is_original,
    is_weight_file,
)
from gpt_oss_mxfp4.checkpoint.schema import LM_HEAD, check_tensors, expected_tensors
from gpt_oss_mxfp4.checkpoint.weight_map import DOWNLOAD_AGAIN, missing_shard, read_index
from gpt_oss_mxfp4.config import GptOssConfig


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that passed every check. No weight has been read.

    Args:
        folder: Where it lies.
        config: Its config.
        files: The files that hold the tensors of ``entries``, sorted by name.
        entries: Every tensor to load, by name: those of ``expected_tensors(config)``, no other.
        notes: A line for each thing that lies in the folder and is not used.
    """

    folder: Path
    config: GptOssConfig
    files: tuple[Path, ...]
    entries: Mapping[str, TensorEntry]
    notes: tuple[str, ...]


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Checks a checkpoint folder.

    Args:
        folder: A folder with config.json and safetensors files in the Hugging Face layout.

    Returns:
        The checkpoint; its tensors are complete, packed as MXFP4 and of the config's shapes.

    Raises:
        CheckpointError: If anything is wrong. Each stage reports all it finds: files, headers,
            index, layout, config, tensors.
    """
    folder = Path(folder)
    entries = find_tensors(folder)
    check_layout(entries, folder)
    return fit(folder, GptOssConfig.from_file(folder / CONFIG_FILE), entries)


def fit(folder: Path, config: GptOssConfig, entries: dict[str, TensorEntry]) -> Checkpoint:
    """The last stage: which of a folder's tensors the config asks for.

    Args:
        folder: A folder whose files, index and layout are sound.
        config: Its config.
        entries: All its tensors, of both layouts.

    Raises:
        CheckpointError: If tensors are missing, or are not as the config has them.
    """
    entries, notes = drop_unused(config, entries)
    check_tensors(expected_tensors(config).items(), entries, folder)
    used = sorted({entry.file for entry in entries.values()})
    return Checkpoint(folder, config, tuple(used), entries, tuple(notes))


def find_tensors(folder: Path) -> dict[str, TensorEntry]:
    """Finds the tensors of a folder, of whatever layout, from headers alone.

    Args:
        folder: A folder with config.json and safetensors files.

    Returns:
        Every tensor of the folder's own files, by name.

    Raises:
        CheckpointError: If files, headers or the index are not sound, or contradict each other.
    """
    files = find_files(folder)
    claims = read_index(folder, files)
    return merge(folder, read_headers(folder, files), claims)


def weight_files(folder: Path) -> list[Path]:
    """The folder's own weight files, even those that are gone."""
    return sorted(path for path in folder.glob("*") if is_weight_file(path.name))


def find_files(folder: Path) -> list[Path]:
    """The folder's weight files, all of which are there."""
    try:
        return _find_files(folder)
    except OSError as error:  # a name too long, a folder that may not be entered
        fault = Fault("no folder", f"cannot be read ({error.strerror})", CHECK_PATH)
        raise CheckpointError(quoted(str(folder)), [fault]) from error


def _find_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        fault = Fault("no folder", "must be a folder, is not", "Check the path")
        raise CheckpointError(folder, [fault])
    if not (folder / CONFIG_FILE).is_file():
        fault = Fault("missing file", f"must hold {CONFIG_FILE}, does not", _root_cure(folder))
        raise CheckpointError(folder, [fault])
    files = weight_files(folder)
    if not files and not (folder / INDEX_FILE).is_file():
        fault = Fault("missing file", "must hold *.safetensors files, has none", _root_cure(folder))
        raise CheckpointError(folder, [fault])
    # A pruned download cache leaves dangling links; reading anything but a file could block.
    faults = [missing_shard(p.name) for p in files if not p.is_file()]
    if faults:
        raise CheckpointError(folder, faults)
    return files


def _root_cure(folder: Path) -> str:
    cure = f"Give the root folder of a checkpoint such as {PUBLISHED}"
    if (folder / "original").is_dir():
        return f"{cure}; its sub-folder original/ is not read"
    return cure


def read_headers(folder: Path, files: list[Path]) -> dict[Path, dict[str, TensorEntry]]:
    """Each file's entries; the faults of all files in one error."""
    by_file, faults = {}, []
    for file in bounded(folder, files):
        try:
            by_file[file] = read_header(file)
        except CheckpointError as error:
            faults += [Fault(f.kind, f"{file.name}: {f.text}", f.cure) for f in error.faults]
    if faults:
        raise CheckpointError(folder, faults)
    return by_file


def merge(
    folder: Path, by_file: Mapping[Path, dict[str, TensorEntry]], claims: Mapping[str, str]
) -> dict[str, TensorEntry]:
    """All files' entries as one, if the files contradict neither each other nor the index."""
    holders = defaultdict(list)
    for file, entries in by_file.items():
        for name in entries:
            holders[name].append(file.name)
    faults = []
    for name, files in holders.items():
        if len(files) > 1:
            text = f"{quoted(name)} must be in one file, is in {' and '.join(files)}"
            cure = "Remove the files that are leftovers of another download"
            faults.append(Fault("tensor twice", text, cure))
        elif claims and name not in claims and not is_original(name):
            text = f"{quoted(name)} in {files[0]} must be listed in {INDEX_FILE}, is not"
            cure = (
                "Move a file that is no part of the model out of the folder, or download it again"
            )
            faults.append(Fault("index and files differ", text, cure))
    for name, claimed in claims.items():
        if claimed not in holders.get(name, ()):
            text = f"{quoted(name)} must be in {claimed} by {INDEX_FILE}, is not"
            faults.append(Fault("index and files differ", text, DOWNLOAD_AGAIN))
    if faults:
        raise CheckpointError(folder, faults)
    return {name: entry for entries in by_file.values() for name, entry in entries.items()}


def drop_unused(
    config: GptOssConfig, entries: Mapping[str, TensorEntry]
) -> tuple[dict[str, TensorEntry], list[str]]:
    """Leaves out what says the same again: a copy in the original layout, an output matrix beside one that is tied.

    Args:
        config: The checkpoint's config.
        entries: All its tensors; where all are of the original layout, they are no copy.

    Returns:
        The others, and a line for each thing that is left out.
    """
    used = dict(entries)
    notes: list[str] = []
    copies = [entry for name, entry in entries.items() if is_original(name)]
    if 0 < len(copies) < len(entries):
        nbytes = sum(entry.nbytes for entry in copies)
        files = ", ".join(sorted({entry.file.name for entry in copies}))
        used = {name: entry for name, entry in entries.items() if not is_original(name)}
        notes.append(
            f"{len(copies)} block.* tensors ({nbytes} bytes, in {files}) are a second copy in the"
            " original/ layout and are not used: the model.* tensors are"
        )
    if config.tie_word_embeddings and LM_HEAD in used:
        nbytes = used.pop(LM_HEAD).nbytes
        notes.append(
            f"{LM_HEAD} ({nbytes} bytes) is not used: tie_word_embeddings is true, the embedding serves"
        )
    return used, notes
