"""The pull verb: a repository's files that this package reads, into huggingface_hub's cache or a folder."""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.hub import download, local_folder
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import run_command
from gpt_oss_mxfp4.progress import Progress


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    """What ``pull`` is asked for.

    Args:
        hub_id: repository.
        revision: branch, tag or commit, or None for the default branch.
        output: folder to fill, or None for huggingface_hub's cache.
    """

    hub_id: str
    revision: str | None = None
    output: Path | None = None


def run_pull(options: PullOptions) -> int:
    """Downloads, and reports what went wrong in one line.

    Args:
        options: what, and to where.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_pull, options), verbose=False)


def _pull(options: PullOptions, write: Write, progress: Progress) -> None:
    if local_folder(options.hub_id) is not None:
        raise Refused(f"{options.hub_id}: must be a Hub id, is a folder here already")
    output, made = options.output, False
    if output is not None:
        made = not os.path.exists(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"--output: {output} cannot be made ({error.strerror})") from error
    try:
        folder = download(options.hub_id, options.revision, output, progress)
    finally:
        if output is not None and made:
            with suppress(OSError):
                output.rmdir()  # where nothing came, nothing is left
    checkpoint = open_checkpoint(folder)
    for note in checkpoint.notes:
        progress.note(note)
    write(f"{folder}\n")
