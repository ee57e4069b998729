"""The verify verb: everything the loader would refuse a folder for, then every byte of its weights."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.checkpoint.checksums import hub_checksum
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.hub import SMALL_FILES, named_folder
from gpt_oss_mxfp4.checkpoint.survey import Survey, survey
from gpt_oss_mxfp4.process import run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text

SHOWN_PER_KIND = 1000
"""Faults of one kind that are spelled out: all of them, but where a file was made to have millions."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What ``verify`` is asked for.

    Args:
        path: folder of the checkpoint.
        json: whether the result is printed as JSON.
    """

    path: Path
    json: bool = False


def run_verify(options: VerifyOptions) -> int:
    """Verifies, and reports all that is wrong in one message.

    Args:
        options: what to verify.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_verify, options), verbose=False)


def _verify(options: VerifyOptions, write: Write, progress: Progress) -> None:
    from gpt_oss_mxfp4.checkpoint.content import check_content  # imports NumPy

    folder = named_folder(options.path)
    seen = survey(folder)
    beside = [folder / name for name in SMALL_FILES]
    beside = [file for file in beside if os.path.isfile(file) and hub_checksum(file) is not None]
    checked = [file for file in (*seen.files, *beside) if hub_checksum(file) is not None]
    total = sum(file.stat().st_size for file in (*seen.files, *beside))

    faults = set(seen.faults)
    if total:
        with progress.bar("verifying", total) as advance:
            for file in (*seen.files, *beside):
                entries = seen.by_file[file] if file in seen.sound else {}
                faults.update(check_content(file, entries, advance))
    if options.json:
        write(json.dumps(_report(seen, faults, checked), indent=2) + "\n")
    if faults:
        raise CheckpointError(folder, faults, SHOWN_PER_KIND)
    if not options.json:
        write(f"{folder}: sound, {_summary(seen, checked)}\n")


def _summary(seen: Survey, checked: list[Path]) -> str:
    read = f"{len(seen.entries)} tensors, {bytes_text(sum(seen.files.values()))}"
    if not checked:
        return f"{read}; no checksums of the Hub are there to compare"
    return f"{read}; {len(checked)} checksums of the Hub match"


def _report(seen: Survey, faults: set[Fault], checked: list[Path]) -> dict[str, object]:
    return {
        "path": str(seen.folder),
        "sound": not faults,
        "files": len(seen.files),
        "bytes": sum(seen.files.values()),
        "tensors": len(seen.entries),
        "checksums": [file.name for file in checked],
        "faults": [asdict(fault) for fault in sorted(faults)],
    }
