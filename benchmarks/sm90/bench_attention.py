"""Hopper's attention of single tokens alone, in one to eight parts of 8 or 16 warps, timed by the card itself.

    ./run python benchmarks/sm90/bench_attention.py [--output FILE] [--rounds N]

The heads of both models: 8 key-value heads of 64, 8 query heads to each. Sequences are in pages of 128 tokens in no
order; a round's launches take layers in turn, so that no cache holds what comes next. What is counted: bytes of keys
and values, once. `*` marks what `choose_parts` and `choose_warps` take on 132 multiprocessors, `<` the fastest. The
roof is a copy of 1 GiB in the same process. Needs NumPy, an NVIDIA driver and Mojo, or in Mojo's place the PTX that
`python -m tests.custom_ops.mxfp4.ptx` writes, where MXFP4_PTX names it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sm90.card import DIFFERENCE, NAN, Card, Work, open_card, random_bfloat16
from tests.cuda_driver.driver import Kernel
from tests.custom_ops.mxfp4.ptx import SM90_ATTENTION, emit, facts
from tests.reference.bfloat16 import decode_bfloat16

CASES = (
    *((1, 1024), (1, 4096), (1, 32768), (1, 131072)),
    *((2, 4096), (4, 4096), (8, 4096), (16, 4096), (32, 4096), (64, 4096)),
)
"""Sequences, and tokens of each."""
PARTS = (1, 2, 4, 8)
KV_HEADS, GROUP, HEAD_DIM, PAGE = 8, 8, 64, 128
LEAST_BYTES = 2**28
"""That a round reads at least: several times what the second-level cache holds."""


def measure(
    card: Card,
    kernels: dict[int, Kernel],
    chosen: tuple[int, int],
    rng: np.random.Generator,
    sequences: int,
    length: int,
) -> list[dict[str, Any]]:
    """Times a step of so many sequences, in each number of parts and warps, and compares what they give."""
    width = -(-length // PAGE)
    of_layer = PAGE * KV_HEADS * HEAD_DIM  # elements of a page's keys, and of its values
    read = 2 * 2 * sequences * length * KV_HEADS * HEAD_DIM
    layers = max(2, -(-LEAST_BYTES // read))
    pages = sequences * width
    page_stride = 2 * layers * of_layer
    cache = card.fill(2 * pages * page_stride, random_bfloat16(rng, 2**22 + 1))
    heads = sequences * KV_HEADS * GROUP
    y = np.full(heads * HEAD_DIM, NAN, np.uint16)
    inputs: dict[str, NDArray[Any]] = {
        "q": random_bfloat16(rng, y.size),
        "row_offsets": np.arange(sequences + 1, dtype=np.uint32),
        "sinks": random_bfloat16(rng, KV_HEADS * GROUP),
        "lengths": np.full(sequences, length - 1, np.uint32),
        "table": rng.permutation(pages).astype(np.uint32),
    }
    at = {name: card.fill(array.nbytes, array) for name, array in inputs.items()}
    output = card.driver.allocate(y.nbytes)
    works, results = [], []
    ways = list(itertools.product(PARTS, kernels))
    for parts, warps in ways:
        launches = [
            kernels[warps].prepare(
                [
                    *(output, at["q"], at["row_offsets"], at["sinks"]),
                    cache + 2 * layer * of_layer,
                    cache + 2 * (layers + layer) * of_layer,
                    *(at["lengths"], at["table"], page_stride, pages, PAGE.bit_length() - 1),
                    *(width, GROUP, np.float32(math.log2(math.e) / math.sqrt(HEAD_DIM)), 0),
                ],
                grid=(parts, KV_HEADS, sequences),
                cluster=parts,
            )
            for layer in range(layers)
        ]
        works.append(Work(f"attention in {parts} parts of {warps} warps", launches))
        card.driver.upload(output, y)
        card.run(works[-1])
        of_parts = np.empty_like(y)
        card.driver.download(output, of_parts)
        results.append(decode_bfloat16(of_parts))
    largest = np.abs(results[0]).max()
    cases = []
    for way, result, times in zip(ways, results, card.seconds(works), strict=True):
        parts, warps = way
        median = statistics.median(times)
        cases.append(
            {
                "sequences": sequences,
                "tokens": length,
                "parts": parts,
                "warps": warps,
                "chosen": way == chosen,
                "us": [1e6 * t for t in (times[0], median, times[-1])],
                "GB_per_s": read / median / 1e9,
                "difference": float(np.abs(result - results[0]).max() / largest),
            }
        )
    for address in (cache, output, *at.values()):
        card.driver.free(address)
    return cases


def print_cases(cases: Sequence[dict[str, Any]], roof: float) -> None:
    """Prints a line for each number of parts."""
    fastest = min(case["us"][1] for case in cases)
    for case in cases:
        low, median, high = case["us"]
        marks = f"{'*' if case['chosen'] else ' '}{'<' if median == fastest else ' '}"
        print(
            f"{case['sequences']:9} {case['tokens']:7} {case['parts']:5} {case['warps']:5}{marks}"
            f" {low:9.1f} {median:8.1f} {high:8.1f}"
            f" {case['GB_per_s']:7.0f} {case['GB_per_s'] / roof:7.0%}"
            f"{'' if case['difference'] <= DIFFERENCE else '   DIFFERS'}",
            flush=True,
        )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON if asked to; 1 if parts change the result by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args(words)
    card, rng = open_card(parser, arguments.rounds), np.random.default_rng(0)
    variants = emit(SM90_ATTENTION)
    kernels = {
        int(name.removeprefix("attention_")): Kernel(card.driver, ptx)
        for name, ptx in variants.items()
    }
    chosen = facts(next(iter(variants.values())))
    report = card.report()
    roof = report["roofs"]["copy_GB_per_s"]
    print(f"{card.driver.name}, copy_GB_per_s {roof:.0f}")
    print("sequences  tokens parts warps     us: min   median      max    GB/s of copy")
    cases: list[dict[str, Any]] = []
    for sequences, length in CASES:
        of_case = measure(
            card,
            kernels,
            (chosen[f"parts_{sequences}"], chosen[f"warps_{sequences}"]),
            rng,
            sequences,
            length,
        )
        print_cases(of_case, roof)
        cases += of_case
        if arguments.output:  # as far as it is, in case that a kernel never ends
            arguments.output.write_text(json.dumps({**report, "cases": cases}, indent=2) + "\n")
    return int(not all(case["difference"] <= DIFFERENCE for case in cases))


if __name__ == "__main__":
    raise SystemExit(main())
