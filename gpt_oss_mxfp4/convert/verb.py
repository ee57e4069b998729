"""The convert verb: one checkpoint in, another out, whole or not at all, and gone on with after a kill."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.convert.companions import find_companion
from gpt_oss_mxfp4.convert.conversion import Conversion, plan_conversion
from gpt_oss_mxfp4.convert.journal import Journal, locked, work_folder
from gpt_oss_mxfp4.convert.layouts import TITLES, Target
from gpt_oss_mxfp4.convert.making import make, quantize
from gpt_oss_mxfp4.convert.per_expert import GateUp
from gpt_oss_mxfp4.convert.report import tell_losses, write_report
from gpt_oss_mxfp4.convert.shards import SHARD_BYTES, Shard, make_shards
from gpt_oss_mxfp4.convert.source import Source
from gpt_oss_mxfp4.convert.writer import verify_in_place
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import check_place, run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text, count_text

TASK_VERSION = 1
"""Raised when the same source and options give other bytes than before: what an older version began is not gone on
with."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What the command line asks for; each field is the argument of the same name, checked by itself.

    Args:
        source: folder of a checkpoint.
        output: folder to make.
        to: the layout that is wanted.
        gate_up: the order of gate and up rows, where the source needs to be told.
        tokenizer: folder with the tokenizer's files, or None to take the source's, or its parent's.
        shard_bytes: bytes of tensors in a file of the output.
        json: file for a report, or None.
    """

    source: Path
    output: Path
    to: Target = "mxfp4"
    gate_up: GateUp | None = None
    tokenizer: Path | None = None
    shard_bytes: int = SHARD_BYTES
    json: Path | None = None


def run_convert(options: ConvertOptions) -> int:
    """Converts, and reports what went wrong in one line.

    Args:
        options: what, and to what.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_convert, options), verbose=False)


def _convert(options: ConvertOptions, write: Write, progress: Progress) -> None:
    _check_places(options)
    if options.to == "original" and options.tokenizer is not None:
        raise Refused("--tokenizer: --to original writes no tokenizer; leave out --tokenizer")
    companion = find_companion(options.source, options.tokenizer)
    conversion = plan_conversion(options.source, options.to, options.gate_up, companion, quantize)
    for note in conversion.notes:
        progress.note(note)
    progress.note(f"{options.source}: {conversion.title}")
    shards = make_shards(conversion.outputs, options.shard_bytes)
    with Source(conversion.files) as source, locked(options.output):
        identity = source.identity()
        journal = Journal(options.output, _task(options, identity, conversion, shards))
        total = sum(shard.nbytes for shard in shards)
        if journal.in_place(shards):
            progress.note(f"{options.output}: was finished by an earlier run")
            with progress.bar(f"reading {options.output} back", total) as advance:
                verify_in_place(shards, journal, advance)
        else:
            if os.path.lexists(options.output):
                raise Refused(
                    f"--output: {options.output} exists already; remove it or name another folder"
                )
            make(conversion, shards, source, companion, journal, progress)
            if source.identity() != identity:
                journal.remove()
                raise Refused(
                    f"{options.source}: was changed while it was read; run the command again"
                )
            journal.finish()
        tell_losses(journal, progress)
        if options.json is not None:
            write_report(options.json, options.source, conversion, shards, journal)
        journal.remove()  # not before: a run after one that could not report can report
    write(f"{options.output}\n")
    progress.note(
        f"{bytes_text(total)} in {count_text(len(shards), 'file')}, {TITLES[options.to]}, read back and found whole"
    )


def _check_places(options: ConvertOptions) -> None:
    """What can be said of the folders before any file is opened."""
    output, source = options.output, options.source
    if not output.name:
        raise Refused(f"--output: must name a folder to make, got {output}")
    # Not pathlib's questions, some of which raise: at a loop of links, at a name that is too long.
    if not os.path.isdir(source):
        raise Refused(f"{source}: must be a folder with a checkpoint, is not")
    if _lies_in(output, source):
        raise Refused(f"--output: {output} must not lie inside the source; name a folder elsewhere")
    if options.json is None:
        return
    if any(_lies_in(options.json, folder) for folder in (source, output, work_folder(output))):
        raise Refused(
            f"--json: {options.json} must not lie inside the source or the output; name a file elsewhere"
        )
    check_place("--json", options.json)


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder's or below it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _task(
    options: ConvertOptions,
    identity: list[dict[str, Any]],
    conversion: Conversion,
    shards: Iterable[Shard],
) -> dict[str, Any]:
    """What must be the same for an unfinished conversion to be gone on with."""
    headers = hashlib.sha256(b"".join(shard.header for shard in shards))
    return {
        "version": TASK_VERSION,
        "source": os.path.realpath(options.source),
        "files": identity,
        "to": options.to,
        "gate_up": options.gate_up,
        "config": conversion.config,
        "headers": headers.hexdigest(),
    }
