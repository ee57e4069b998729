"""What every side of the comparison on a Hopper GPU computes and counts: sizes, routing, a line of the table.

NumPy alone, so that a process with MAX and one with Triton can have it each.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENS = (1, 4, 16, 64, 256, 1024, 4096)
LAYERS, WEIGHT_SETS = 20, 4
"""Layers of one timing, and sets of weights that they take in turn: 1.7 GB in MXFP4, which no cache holds."""

LIMIT = 7.0
SCALES = range(118, 126)
"""Scale bytes that weights are drawn with: 2^-9 to 2^-2, so that outputs are neither huge nor denormal."""

BYTES_PER_WEIGHT = 17 / 32
WARM_UP_RUNS = 2
SEED = 0

HEADER = "tokens experts    us: min median    max    GB/s of copy   TFLOP/s of matmul"


@dataclass(frozen=True)
class Sizes:
    """A layer.

    Args:
        experts: E.
        top_k: experts of a token.
        hidden: K of the first matmul, N of the second.
        inner: half of N of the first matmul, K of the second.
    """

    experts: int
    top_k: int
    hidden: int
    inner: int

    @property
    def weights(self) -> int:
        """Weights of an expert in both matmuls."""
        return 3 * self.inner * self.hidden


GPT_OSS_20B = Sizes(experts=32, top_k=4, hidden=2880, inner=2880)


@dataclass(frozen=True)
class Routing:
    """Which rows every expert gets.

    Args:
        order: [P] int32, row ``i``, sorted by expert, is choice ``order[i]`` of all tokens' choices, ``top_k`` each.
        offsets: [E + 1] int32, where the rows of each expert begin.
    """

    order: NDArray[np.int32]
    offsets: NDArray[np.int32]

    @property
    def counts(self) -> NDArray[np.int32]:
        """Rows of each expert."""
        return np.diff(self.offsets)

    @property
    def touched(self) -> int:
        """Experts that have rows."""
        return int((self.counts > 0).sum())


def draw_routing(tokens: int, sizes: Sizes = GPT_OSS_20B) -> Routing:
    """Sends each token to ``top_k`` different experts, all alike; the same on every side, whatever was drawn before."""
    return route_tokens(np.random.default_rng([SEED, tokens]), tokens, sizes)


def route_tokens(rng: np.random.Generator, tokens: int, sizes: Sizes) -> Routing:
    """Sends each token to ``top_k`` different experts, all alike, as drawn next."""
    choices = [rng.permutation(sizes.experts)[: sizes.top_k] for _ in range(tokens)]
    ids = np.array(choices, int).reshape(-1)
    counts = np.bincount(ids, minlength=sizes.experts)
    return Routing(
        order=np.argsort(ids, kind="stable").astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    )


def summarize(tokens: int, times: Sequence[float], sizes: Sizes = GPT_OSS_20B) -> dict[str, Any]:
    """Makes a case's record.

    Args:
        tokens: of the case.
        times: seconds for one layer, in any order.
        sizes: of the layer.

    Returns:
        Microseconds (least, median, most), and rates of the median: bytes of every expert that a token goes to, once,
        at what MXFP4 takes, and two operations for a weight and a row.
    """
    touched, median = draw_routing(tokens, sizes).touched, statistics.median(times)
    return {
        "tokens": tokens,
        "experts": touched,
        "us": [1e6 * t for t in (min(times), median, max(times))],
        "GB_per_s": touched * sizes.weights * BYTES_PER_WEIGHT / median / 1e9,
        "TFLOP_per_s": 2 * tokens * sizes.top_k * sizes.weights / median / 1e12,
    }


def format_case(case: Mapping[str, Any], roofs: Mapping[str, float] | None) -> str:
    """Makes a line under ``HEADER``; the shares are left out where the card's roofs are not known."""
    low, median, high = case["us"]
    shares = ["", ""]
    if roofs:
        shares = [
            f"{case[rate] / roofs[roof]:.0%}"
            for rate, roof in (
                ("GB_per_s", "copy_GB_per_s"),
                ("TFLOP_per_s", "matmul_TFLOP_per_s"),
            )
        ]
    return (
        f"{case['tokens']:6} {case['experts']:7} {low:10.1f} {median:6.1f} {high:6.1f}"
        f" {case['GB_per_s']:7.0f} {shares[0]:>7} {case['TFLOP_per_s']:9.1f} {shares[1]:>9}"
    )
