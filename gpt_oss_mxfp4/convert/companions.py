"""The files beside the weights: tokenizer, chat template, generation settings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.hub import SMALL_FILES
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, INDEX_FILE
from gpt_oss_mxfp4.checkpoint.tokenizer import TOKENIZER_FILE
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress

COPIED = tuple(name for name in SMALL_FILES if name not in (CONFIG_FILE, INDEX_FILE))
"""What is copied where it is there."""


def find_companion(source: Path, named: Path | None) -> Path | None:
    """Finds the folder to copy from.

    Args:
        source: the checkpoint.
        named: the folder that the user named, or None.

    Returns:
        That folder; else the source if it has a tokenizer; else the folder above one called ``original``, if that
        has; else None.

    Raises:
        Refused: the named folder has no tokenizer.
    """
    if named is not None:
        if not os.path.isfile(named / TOKENIZER_FILE):
            raise Refused(f"--tokenizer: {named} must be a folder with {TOKENIZER_FILE}, is not")
        return named
    candidates = [source]
    real = Path(os.path.realpath(source))
    if real.name == "original":
        candidates.append(real.parent)
    return next((folder for folder in candidates if os.path.isfile(folder / TOKENIZER_FILE)), None)


def copy_companions(companion: Path | None, folder: Path, progress: Progress) -> None:
    """Copies what is there, and says what is missing.

    Args:
        companion: from :func:`find_companion`.
        folder: where to.
        progress: gets a note.

    Raises:
        Refused: a file cannot be read or written.
    """
    if companion is None:
        progress.note(
            f"no {TOKENIZER_FILE} was found: copy a tokenizer's files into the output, or name their folder with "
            "--tokenizer"
        )
        return
    for name in COPIED:
        if os.path.isfile(companion / name):
            try:
                shutil.copyfile(companion / name, folder / name)
            except OSError as error:
                raise Refused(f"{companion / name}: cannot be copied ({error.strerror})") from error
