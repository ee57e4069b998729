"""The gpt-oss-mxfp4 command: only parses arguments. Each verb is a module with an ``add`` function."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

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
from gpt_oss_mxfp4.toolchain import package_version

VERBS = (generate, chat, serve, compile, bench, inspect, verify, pull, convert)
"""In the order in which ``--help`` lists them."""


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line; ``--help`` shows the rest."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


class Version(argparse.Action):
    """Prints versions, which are looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Exits with code 0."""
        found = (f"{package} {package_version(package)}" for package in ("gpt-oss-mxfp4", "max"))
        print(", ".join(found))
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 on success, 1 if the command failed while running, 2 if the arguments, the checkpoint or the
        machine do not allow it, 130 if interrupted, 143 if terminated, 141 if the reader of standard output has closed
        it.
    """
    parser = OneLineParser(
        prog="gpt-oss-mxfp4", description="Run gpt-oss from its MXFP4 weights on MAX."
    )
    parser.add_argument(
        "--version", action=Version, nargs=0, help="show the versions of this package and MAX"
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
