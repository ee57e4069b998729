"""Arguments of the verbs that generate text: how tokens are chosen, and how many."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.values import (
    Options,
    options_of,
    positive,
    seed,
    share,
    temperature,
    top_k,
)
from gpt_oss_mxfp4.options import SamplingOptions


def add_sampling(verb: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Adds the sampling arguments.

    Args:
        verb: the verb's parser.
        max_new_tokens: the verb's default for ``--max-new-tokens``.
    """
    add = verb.add_argument
    add(
        "--max-new-tokens",
        type=positive,
        default=max_new_tokens,
        metavar="N",
        help="maximum tokens of an answer, including reasoning; default: %(default)s",
    )
    add(
        "--temperature",
        type=temperature,
        metavar="T",
        help="sampling temperature; default: 0, always the most likely token, or 1 with --top-k or --top-p",
    )
    add("--top-k", type=top_k, metavar="K", help="sample only from the K most likely tokens")
    add(
        "--top-p",
        type=share,
        metavar="P",
        help="sample only from the most likely tokens whose probabilities add up to P",
    )
    add(
        "--seed",
        type=seed,
        default=SamplingOptions.seed,
        metavar="S",
        help="random seed; the same seed gives the same text; default: %(default)s",
    )


def sampled_options_of(arguments: argparse.Namespace, kind: type[Options]) -> Options:
    """Does what `options_of` does, and fills in the temperature."""
    if arguments.temperature is None:
        arguments.temperature = float(arguments.top_k is not None or arguments.top_p is not None)
    return options_of(arguments, kind)
