"""Arguments of the compile verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.engine import add_model, add_precision
from gpt_oss_mxfp4.cli.values import options_of, path
from gpt_oss_mxfp4.compile import run_compile
from gpt_oss_mxfp4.options import CompileOptions

TARGETS = ("cpu", "cuda:sm_90a")
"""Valid compilation targets."""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    compiled = verbs.add_parser(
        "compile",
        help="compile ahead of time, for this machine or a Hopper GPU",
        description="Compiles to a folder what generate would otherwise compile at start-up; generate --precompiled "
        "then uses it. The GPU need not be in this machine, and only weights that are rounded on loading are read. "
        "Example: gpt-oss-mxfp4 compile --model openai/gpt-oss-20b --target cuda:sm_90a --output compiled-20b",
    )
    add_model(compiled)
    compiled.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="cpu for this machine's CPU, cuda:sm_90a for any Hopper GPU; default: %(default)s",
    )
    compiled.add_argument(
        "--output", required=True, type=path, metavar="DIR", help="folder to create"
    )
    add_precision(compiled)
    compiled.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_compile(options_of(arguments, CompileOptions))
