"""Arguments of the inspect verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import options_of, path
from gpt_oss_mxfp4.inspection.verb import InspectOptions, run_inspect


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    inspect = verbs.add_parser(
        "inspect",
        help="show what a checkpoint is and whether this package runs it",
        description="Prints a checkpoint's layout, sizes, tensors by kind, memory by device and, if it would be "
        "refused, why. Reads only the headers of the weights, for a Hub id over the network. The exit code is 0 if "
        "the checkpoint would run, 2 if not. Example: gpt-oss-mxfp4 inspect openai/gpt-oss-20b",
    )
    inspect.add_argument(
        "model",
        metavar="PATH_OR_HUB_ID",
        help="checkpoint folder or Hub id, such as openai/gpt-oss-20b",
    )
    inspect.add_argument("--json", action="store_true", help="print the same information as JSON")
    inspect.add_argument(
        "--experts",
        type=path,
        metavar="FILE.svg",
        help="also read the experts' scales, and plot them in FILE.svg",
    )
    inspect.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_inspect(options_of(arguments, InspectOptions))
