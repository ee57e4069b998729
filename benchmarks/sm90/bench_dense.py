"""Hopper's dense products of few tokens alone, timed by the card itself.

    ./run python benchmarks/sm90/bench_dense.py [--output FILE] [--rounds N]

The dense matmuls of a layer, which both models have in the same sizes: queries, keys and values by one, what follows
attention, and the routers of 32 and 128 experts. A round's launches take sets of weights in turn, so that no cache
holds what comes next: in turn, and overlapping, where each is begun before the one before is over, as it is in the
model where that one is a kernel of ours. What is counted: bytes of the weights, once. The roof is a copy of 1 GiB in
the same process. Needs NumPy, an NVIDIA driver and Mojo, or in Mojo's place the PTX that `python -m
tests.custom_ops.mxfp4.ptx` writes, where MXFP4_PTX names it. MAX's own kernels: `gpt-oss-mxfp4 bench` with and without
MXFP4_DENSE_KERNEL=sm90.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sm90.card import DIFFERENCE, NAN, Card, Work, open_card, random_bfloat16
from tests.cuda_driver.driver import Kernel
from tests.custom_ops.mxfp4.ptx import SM90_DENSE, emit, facts
from tests.reference.bfloat16 import decode_bfloat16

MATMULS = {
    "queries, keys, values": (5120, 2880),
    "after attention": (2880, 4096),
    "router of 20b": (32, 2880),
    "router of 120b": (128, 2880),
}
"""Outputs and K of each."""
TOKENS = (1, 4, 8, 16, 32)
ROOMS = (8, 16, 32)
"""Tokens that a kernel has room for."""
FEW_ROWS = 8
"""Outputs of a block where there are few."""
LEAST_BYTES = 2**28
"""That a round reads at least, of large matrices: several times what the second-level cache holds."""
MAX_SETS = 64
"""Sets of weights at most, of small ones."""


@dataclass(frozen=True)
class Variant:
    """A compiled kernel.

    Args:
        kernel: the module.
        facts: what the emitting program says of it.
    """

    kernel: Kernel
    facts: dict[str, int]

    def grid(self, outputs: int) -> tuple[int, int, int]:
        """Gives the blocks of a launch for so many outputs."""
        return -(-outputs // self.facts["rows"]), 1, 1


def choose_name(outputs: int, tokens: int, multiprocessors: int) -> str:
    """Gives the name of the kernel that `sm90/dense.mojo` launches."""
    few = -(-outputs // FEW_ROWS) <= multiprocessors
    return f"{'few' if few else 'dense'}_{min(room for room in ROOMS if room >= tokens)}"


def measure(
    card: Card,
    variant: Variant,
    rng: np.random.Generator,
    sizes: tuple[int, int],
    tokens: int,
) -> list[dict[str, Any]]:
    """Times a matmul of so many tokens in turn and overlapping, and compares what it gives with NumPy."""
    outputs, k = sizes
    read = 2 * outputs * k
    sets = min(MAX_SETS, -(-LEAST_BYTES // read))
    w = random_bfloat16(rng, outputs * k)
    x = random_bfloat16(rng, tokens * k)
    bias = random_bfloat16(rng, outputs)
    y = np.full(tokens * outputs, NAN, np.uint16)
    weights = [card.fill(read, w) for _ in range(sets)]
    at = [card.fill(array.nbytes, array) for array in (x, bias)]
    output = card.driver.allocate(y.nbytes)
    works = [
        Work(
            f"dense of {tokens} tokens",
            [
                variant.kernel.prepare(
                    [output, at[0], of_set, at[1], tokens, outputs, k],
                    grid=variant.grid(outputs),
                    shared_bytes=variant.facts["shared_bytes"],
                    overlapping=overlapping,
                )
                for of_set in weights
            ],
        )
        for overlapping in (False, True)
    ]
    want = decode_bfloat16(x).reshape(tokens, k) @ decode_bfloat16(w).reshape(outputs, k).T
    want += decode_bfloat16(bias)
    differences = []
    for work in works:
        card.driver.upload(output, y)
        card.run(work)
        got = np.empty_like(y)
        card.driver.download(output, got)
        difference = np.abs(decode_bfloat16(got).reshape(want.shape) - want).max()
        differences.append(float(difference / np.abs(want).max()))
    cases = []
    for times, difference, overlapping in zip(
        card.seconds(works), differences, (False, True), strict=True
    ):
        median = statistics.median(times)
        cases.append(
            {
                "outputs": outputs,
                "k": k,
                "tokens": tokens,
                "overlapping": overlapping,
                "us": [1e6 * t for t in (times[0], median, times[-1])],
                "GB_per_s": read / median / 1e9,
                "difference": difference,
            }
        )
    for address in (output, *weights, *at):
        card.driver.free(address)
    return cases


def is_right(case: dict[str, Any]) -> bool:
    """Says whether what a case gives is NumPy's but for rounding; a NaN is not."""
    right: bool = case["difference"] <= DIFFERENCE
    return right


def print_cases(cases: Sequence[dict[str, Any]], name: str, roof: float) -> None:
    """Prints a line for each way to launch."""
    for case in cases:
        low, median, high = case["us"]
        print(
            f"{name:22} {case['tokens']:6}  {'overlapping' if case['overlapping'] else 'in turn':11}"
            f" {low:7.1f} {median:8.1f} {high:8.1f} {case['GB_per_s']:7.0f} {case['GB_per_s'] / roof:7.0%}"
            f"{'' if is_right(case) else '   DIFFERS'}",
            flush=True,
        )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON if asked to; 1 if a result is not NumPy's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args(words)
    card, rng = open_card(parser, arguments.rounds), np.random.default_rng(0)
    variants = {
        name: Variant(Kernel(card.driver, ptx), facts(ptx))
        for name, ptx in emit(SM90_DENSE).items()
    }
    report = card.report()
    roof = report["roofs"]["copy_GB_per_s"]
    print(f"{card.driver.name}, copy_GB_per_s {roof:.0f}")
    print("matmul                 tokens           us: min   median      max    GB/s of copy")
    cases: list[dict[str, Any]] = []
    for name, sizes in MATMULS.items():
        for tokens in TOKENS:
            variant = variants[choose_name(sizes[0], tokens, card.driver.multiprocessors)]
            of_case = measure(card, variant, rng, sizes, tokens)
            print_cases(of_case, name, roof)
            cases += of_case
        if arguments.output:  # as far as it is, in case that a kernel never ends
            arguments.output.write_text(json.dumps({**report, "cases": cases}, indent=2) + "\n")
    return int(not all(is_right(case) for case in cases))


if __name__ == "__main__":
    raise SystemExit(main())
