"""What the scripts that run another engine have in common: their arguments, and what they write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.measurement import Subject, Workload, measure


class Engine(Protocol):
    """Another engine with its model loaded."""

    @property
    def subject(self) -> Subject:
        """What it is."""

    @property
    def vocab_size(self) -> int:
        """Of its model."""

    def stream(self, prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        """Continues prompts of one length by their likeliest tokens, see `gpt_oss_mxfp4.measurement.Stream`."""

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        """Gives [tokens, vocabulary] logits at every position of one sequence."""


def side_parser(description: str) -> argparse.ArgumentParser:
    """Makes a parser with the arguments that every side takes.

    Args:
        description: of the script.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="what to run")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--json", type=Path, metavar="FILE", help="measure, and write a report there")
    task.add_argument(
        "--logits", type=Path, metavar="FILE.npy", help="write logits of --tokens there"
    )
    add("--tokens", type=Path, metavar="FILE.json", help="a list of token ids")
    add("--prompt-tokens", type=int, default=512, help="of a batch; default: %(default)s")
    add("--new-tokens", type=int, default=64, help="of each sequence; default: %(default)s")
    add("--batch", type=int, nargs="+", default=[1], help="sequences at once; default: 1")
    add("--runs", type=int, default=1, help="of each batch; default: %(default)s")
    add("--threads", type=int, default=1, help="default: %(default)s")
    return parser


def run_side(arguments: argparse.Namespace, load: Callable[[], Engine]) -> None:
    """Loads an engine, and does what it is asked to do.

    Args:
        arguments: from a `side_parser`.
        load: makes the engine.
    """
    engine = load()
    if arguments.logits:
        np.save(arguments.logits, engine.logits(json.loads(arguments.tokens.read_text())))
        return
    workload = Workload(
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        batch=tuple(arguments.batch),
        runs=arguments.runs,
    )
    report = measure(engine.stream, engine.vocab_size, workload, engine.subject)
    arguments.json.write_text(report.to_json())
