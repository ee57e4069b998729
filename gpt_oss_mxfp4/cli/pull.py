"""Arguments of the pull verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import path
from gpt_oss_mxfp4.pull import PullOptions, run_pull


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    pull = verbs.add_parser(
        "pull",
        help="download what is read of a repository, and go on where that stopped",
        description="Downloads the files that this package reads, not the repository's other copies of the weights, "
        "and prints the folder they are in. Interrupted, it goes on where it stopped; the SHA-256 of each "
        "weight file that travels is checked. "
        "Example: gpt-oss-mxfp4 pull openai/gpt-oss-20b --output ~/models/gpt-oss-20b",
    )
    pull.add_argument("hub_id", metavar="HUB_ID", help="a repository such as openai/gpt-oss-20b")
    pull.add_argument("--revision", metavar="R", help="branch, tag or commit; default: main")
    pull.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="a folder to fill; default: the cache that --model looks in",
    )
    pull.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_pull(
        PullOptions(hub_id=arguments.hub_id, revision=arguments.revision, output=arguments.output)
    )
