"""Arguments of the verbs that generate text: how tokens are chosen, and how many."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from gpt_oss_mxfp4.cli.values import positive, seed, share, temperature, top_k
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


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of :func:`add_sampling` as fields of ``SamplingOptions``."""
    asked = {field.name: getattr(arguments, field.name) for field in fields(SamplingOptions)}
    if asked["temperature"] is None:
        sampled = asked["top_k"] is not None or asked["top_p"] is not None
        asked["temperature"] = float(sampled)
    return asked
