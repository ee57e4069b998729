"""The compile verb: what ``generate`` compiles when it starts, written to a folder, for this machine or another."""

from __future__ import annotations

import functools
import gc
import os
import shutil

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.machine import require_bfloat16
from gpt_oss_mxfp4.options import CompileOptions, Refused
from gpt_oss_mxfp4.process import run_command, written_whole
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.threads import limit_threads

ROOM_BYTES = 2**20
"""Less than this left on a disk, and what was being written did not fit."""


def run_compile(options: CompileOptions) -> int:
    """Compiles, and reports what went wrong in one line.

    Args:
        options: what, and for what.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_compile, options), verbose=options.verbose)


def _compile(options: CompileOptions, write: Write, progress: Progress) -> None:
    limit_threads(None)
    output = options.output
    if os.path.lexists(output):
        raise Refused(f"--output: {output} exists already; remove it or name another folder")
    checkpoint = open_model(options.model, progress)
    if options.target != "cpu":
        require_bfloat16(options, "compile with --target cpu")
    with progress.step("loading MAX"):
        from gpt_oss_mxfp4 import engine
    with written_whole(output) as folder:
        name = f"compiling {options.model_name} for {options.target}"
        try:
            with progress.step(name, "a few minutes"):
                engine.compile_into(checkpoint, options, folder)
        except Refused as error:  # MAX tells of a full disk in words of its own
            if shutil.disk_usage(folder).free < ROOM_BYTES:
                raise Refused(
                    f"--output: {output} cannot be written, the disk is full ({error})"
                ) from error
            raise
        except OSError as error:  # of the folder: what is read for it refuses by itself
            raise Refused(f"--output: {output} cannot be written ({error.strerror})") from error
    gc.collect()  # MAX's objects refer to each other; left to the interpreter's end, they may abort it (NOTES F78)
    size = sum(file.stat().st_size for file in output.rglob("*"))
    write(f"{output}\n")
    progress.note(f"{size / 1e6:.1f} MB; generate --precompiled {output} uses it")
