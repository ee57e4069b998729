"""The compile verb: what ``generate`` compiles when it starts, written to a folder, for this machine or another."""

from __future__ import annotations

import functools

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.machine import require_bfloat16
from gpt_oss_mxfp4.options import CompileOptions, Refused, name_model
from gpt_oss_mxfp4.process import run_command, written_whole
from gpt_oss_mxfp4.progress import Progress


def run_compile(options: CompileOptions) -> int:
    """Compiles, and reports what went wrong in one line.

    Args:
        options: what, and for what.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_compile, options), verbose=options.verbose)


def _compile(options: CompileOptions, write: Write, progress: Progress) -> None:
    output = options.output
    if output.exists():
        raise Refused(f"--output: {output} exists already; remove it or name another folder")
    checkpoint = open_model(options.model, progress)
    if options.target != "cpu":
        require_bfloat16(options, "compile with --target cpu")
    with progress.step("loading MAX"):
        from gpt_oss_mxfp4 import engine
    with written_whole(output) as folder:
        name = f"compiling {name_model(options.model)} for {options.target}"
        with progress.step(name, "a few minutes"):
            engine.compile_into(checkpoint, options, folder)
    size = sum(file.stat().st_size for file in output.rglob("*"))
    write(f"{output}\n")
    progress.note(f"{size / 1e6:.1f} MB; generate --precompiled {output} uses it")
