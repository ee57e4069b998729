"""survey: what a folder holds and everything it would be refused for, however broken it is.

The stages are the loader's own (``checkpoint.py``). It stops at the first that fails; here each runs
whose input is there, so that one look tells all.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gpt_oss_mxfp4.checkpoint.bounds import bounded
from gpt_oss_mxfp4.checkpoint.checkpoint import (
    Checkpoint,
    find_files,
    fit,
    merge,
    weight_files,
)
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import TensorEntry, scan_header
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, check_layout
from gpt_oss_mxfp4.checkpoint.strict_json import read_object
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.checkpoint.weight_map import read_index
from gpt_oss_mxfp4.config import GptOssConfig

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Survey:
    """What a folder holds, as far as headers could be read.

    Args:
        folder: Where it lies.
        files: Size in bytes of each weight file, sorted by name.
        by_file: Entries of the files whose header could be read.
        sound: The files whose header is sound, so that tensors lie where it says.
        fields: The object in config.json, empty where there is none.
        config: The same, checked, or None.
        faults: What it is refused for by the loader, or for want of a tokenizer, each with its file's name; none where
            it runs.
        checkpoint: What the loader makes of it, or None.
    """

    folder: Path
    files: Mapping[Path, int]
    by_file: Mapping[Path, Mapping[str, TensorEntry]]
    sound: frozenset[Path]
    fields: Mapping[str, Any]
    config: GptOssConfig | None
    faults: tuple[Fault, ...]
    checkpoint: Checkpoint | None

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """All tensors; of two of one name, the first file's."""
        found: dict[str, TensorEntry] = {}
        for entries in self.by_file.values():
            for name, entry in entries.items():
                found.setdefault(name, entry)
        return found


def survey(folder: Path, *, hollow: bool = False) -> Survey:
    """Looks at a folder; reads no byte of weight.

    Args:
        folder: The folder; whatever is wrong with it becomes a fault.
        hollow: Whether it is a hollow copy, in which the tokenizer's files are holes.
    """
    faults: set[Fault] = set()

    def attempt(stage: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        try:
            return stage(*args, **kwargs)
        except CheckpointError as error:
            faults.update(_within(folder, error))
            return None

    found = attempt(find_files, folder)
    files = found if found is not None else _present_files(folder)
    claims = attempt(read_index, folder, files)
    by_file: dict[Path, dict[str, TensorEntry]] = {}
    sound = set()
    for file in attempt(bounded, folder, files) or []:
        scanned = attempt(scan_header, file)
        if scanned is None:
            continue
        by_file[file], of_file = scanned
        faults.update(_named(file, of_file))
        if not of_file:
            sound.add(file)
    merged = None
    if claims is not None and not faults:
        merged = attempt(merge, folder, by_file, claims)
    attempt(check_layout, {name for entries in by_file.values() for name in entries}, folder)

    fields: dict[str, Any] = {}
    config = checkpoint = None
    if os.path.isfile(folder / CONFIG_FILE):  # which no path makes raise
        fields = attempt(read_object, folder / CONFIG_FILE) or {}
        config = attempt(GptOssConfig.from_file, folder / CONFIG_FILE)
    if merged is not None and config is not None and not faults:
        checkpoint = attempt(fit, folder, config, merged)
    if (
        files or fields
    ):  # else it is no checkpoint at all, and a tokenizer the least that is missing
        attempt(check_tokenizer, folder, content=not hollow)
    sizes = {file: file.stat().st_size for file in files}
    return Survey(
        folder, sizes, by_file, frozenset(sound), fields, config, tuple(sorted(faults)), checkpoint
    )


def _present_files(folder: Path) -> list[Path]:
    """The weight files that are there, of a folder where some are not."""
    try:
        return [file for file in weight_files(folder) if file.is_file()]
    except OSError:
        return []


def _within(folder: Path, error: CheckpointError) -> list[Fault]:
    """An error's faults, those of a file in the folder with its name."""
    where = Path(error.where)
    return _named(where, error.faults) if where.parent == folder else list(error.faults)


def _named(file: Path, faults: Iterable[Fault]) -> list[Fault]:
    return [Fault(f.kind, f"{file.name}: {f.text}", f.cure) for f in faults]
