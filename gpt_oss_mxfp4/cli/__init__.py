"""The gpt-oss-mxfp4 command: parses arguments, and nothing else. A verb is a module with ``add``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from gpt_oss_mxfp4.bench import package_version
from gpt_oss_mxfp4.cli import (
    bench,
    chat,
    compile,
    convert,
    generate,
    inspect,
    pull,
    serve,
    verify,
)

VERBS = (generate, chat, serve, compile, bench, inspect, verify, pull, convert)
"""In the order of ``--help``."""


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line; ``--help`` tells the rest."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


class Version(argparse.Action):
    """Prints versions; looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Ends with exit code 0."""
        found = (f"{package} {package_version(package)}" for package in ("gpt-oss-mxfp4", "max"))
        print(", ".join(found))
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; those of the process unless given.

    Returns:
        The exit code: 0, 1 where what ran has broken, 2 where the arguments, the checkpoint or the machine do not
        allow it, 130 if interrupted, 141 where whoever read the text has stopped.
    """
    parser = OneLineParser(
        prog="gpt-oss-mxfp4", description="gpt-oss from its MXFP4 weights, on MAX."
    )
    parser.add_argument(
        "--version", action=Version, nargs=0, help="tell this package's version and MAX's"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.add(verbs)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help, or a wrong argument
        return int(end.code or 0)
    code: int = arguments.run(arguments)
    return code
