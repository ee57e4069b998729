"""Arguments of the verify verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import options_of, path
from gpt_oss_mxfp4.verify import VerifyOptions, run_verify


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    verify = verbs.add_parser(
        "verify",
        help="read every byte of a checkpoint and report everything that is wrong with it",
        description="Checks everything that loading checks, then reads all weights: no scale may be NaN, no dense "
        "weight NaN or infinite, no expert all zeros, and the Hub's checksums must match if they were kept. The exit "
        "code is 0 if the checkpoint is sound, 2 if not. Example: gpt-oss-mxfp4 verify ~/models/gpt-oss-20b",
    )
    verify.add_argument("path", type=path, metavar="PATH", help="checkpoint folder")
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_verify(options_of(arguments, VerifyOptions))
