"""Arguments of the verbs that make text: how each token is chosen, and how many."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from gpt_oss_mxfp4.cli.values import positive, seed, share, temperature
from gpt_oss_mxfp4.options import SamplingOptions


def add_sampling(verb: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Adds them.

    Args:
        verb: the verb.
        max_new_tokens: its default.
    """
    add = verb.add_argument
    add(
        "--max-new-tokens",
        type=positive,
        default=max_new_tokens,
        metavar="N",
        help="of an answer, reasoning included; default: %(default)s",
    )
    add(
        "--temperature",
        type=temperature,
        metavar="T",
        help="0, the default, always takes the likeliest token; 1 is the default with --top-k or --top-p",
    )
    add("--top-k", type=positive, metavar="K", help="sample from the K likeliest tokens only")
    add(
        "--top-p",
        type=share,
        metavar="P",
        help="sample from the likeliest tokens that make up the share P only",
    )
    add(
        "--seed",
        type=seed,
        default=SamplingOptions.seed,
        metavar="S",
        help="equal seeds give equal texts; default: %(default)s",
    )


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Picks out what :func:`add_sampling` added, as fields of ``SamplingOptions``."""
    asked = {field.name: getattr(arguments, field.name) for field in fields(SamplingOptions)}
    if asked["temperature"] is None:
        sampled = asked["top_k"] is not None or asked["top_p"] is not None
        asked["temperature"] = float(sampled)
    return asked
