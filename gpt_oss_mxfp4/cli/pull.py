"""Arguments of the pull verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import options_of, path
from gpt_oss_mxfp4.pull import PullOptions, run_pull


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    pull = verbs.add_parser(
        "pull",
        help="download the files this package needs from a repository, resuming if interrupted",
        description="Downloads only the files that this package reads, not the repository's other copies of the "
        "weights, and prints the folder that holds them. An interrupted download resumes where it stopped; the "
        "SHA-256 of each downloaded weight file is checked. "
        "Example: gpt-oss-mxfp4 pull openai/gpt-oss-20b --output ~/models/gpt-oss-20b",
    )
    pull.add_argument("hub_id", metavar="HUB_ID", help="repository, such as openai/gpt-oss-20b")
    pull.add_argument("--revision", metavar="R", help="branch, tag or commit; default: main")
    pull.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="folder to download into; default: the cache that --model searches",
    )
    pull.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_pull(options_of(arguments, PullOptions))
