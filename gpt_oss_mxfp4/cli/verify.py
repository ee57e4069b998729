"""Arguments of the verify verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import path
from gpt_oss_mxfp4.verify import VerifyOptions, run_verify


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    verify = verbs.add_parser(
        "verify",
        help="read a checkpoint to its last byte and tell all that is wrong with it",
        description="Checks everything that loading checks, then reads all weights: no scale that means NaN, no NaN or "
        "infinity in dense weights, no expert of zeros, and the Hub's checksums where they were kept. Exit code 0 "
        "where it is sound, 2 where not. Example: gpt-oss-mxfp4 verify ~/models/gpt-oss-20b",
    )
    verify.add_argument("path", type=path, metavar="PATH", help="the checkpoint's folder")
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_verify(VerifyOptions(path=arguments.path, json=arguments.json))
