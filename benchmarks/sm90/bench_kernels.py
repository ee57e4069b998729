"""Hopper's grouped matmul alone: every configuration at every number of tokens, timed by the card itself.

    ./run python benchmarks/sm90/bench_kernels.py [--output FILE] [--rounds N] [--tokens N ...] [--cuts]

Both matmuls of a layer at 20b's sizes, and at 120b's. A round's launches take 16 routings in turn, and for 20b four
sets of weights, so that no cache holds what comes next; events on the card time them, behind a copy that keeps it
busy until they are queued. Each round times all configurations, another one first. What is counted: bytes of every
expert that a token goes to, once, and 2 * rows * N * K operations. `*` marks the configuration that `choose_config`
takes, `<` the fastest. Then a layer: both matmuls in those configurations, the second on what the first gives: in
turn; overlapping, which is begun before the kernel before is over, and waiting for it; and of few tokens in one
kernel, as the model launches them if asked to. `--cuts` adds other ways to cut few tokens, which no model takes
(`tests/custom_ops/mxfp4/sm90/emit_cuts.mojo`). The roof is a copy of 1 GiB in the same process. Needs NumPy, an
NVIDIA driver and Mojo, or in Mojo's place the PTX that `python -m tests.custom_ops.mxfp4.ptx` writes, where MXFP4_PTX
names it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sm90.card import DIFFERENCE, NAN, Card, Work, open_card, random_bfloat16
from benchmarks.sm90.cases import BYTES_PER_WEIGHT, GPT_OSS_20B, LIMIT, route_tokens
from benchmarks.sm90.cases import TOKENS as TOKENS_20B
from tests.cuda_driver.driver import LOCAL_SIZE_BYTES, NUM_REGS, Driver, Kernel, Number
from tests.custom_ops.mxfp4.ptx import SM90, SM90_CUTS, SM90_MLP, emit, facts
from tests.reference.bfloat16 import decode_bfloat16
from tests.reference.sm90_tiles import CODE_BYTES, SCALE_OFFSET, TILE, TILE_BYTES

EXPERTS = {"20b": 32, "120b": 128}
POOL = 128
"""Experts with weights on the card: 120b's, or 20b's four times."""
TOKENS = {"20b": TOKENS_20B, "120b": (1, 4, 16, 64, 1024, 4096)}
TOP_K = GPT_OSS_20B.top_k
ROUTINGS = 16
FEW_TOKENS = 64
REPEATS = 4
"""Of each routing in a round, where tokens are few and launches short."""
COMPARED = 2**20
"""Outputs that are compared, from the first row on."""


@dataclass(frozen=True)
class Matmul:
    """One of a layer's two matmuls.

    Args:
        name: the projection's.
        n: weight rows of an expert.
        k: of the product.
        gated: whether SwiGLU follows, and rows of x are taken by token.
    """

    name: str
    n: int
    k: int
    gated: bool

    @property
    def outputs(self) -> int:
        """Columns of the result."""
        return self.n // 2 if self.gated else self.n

    @property
    def tiles(self) -> int:
        """Tiles of an expert's packed weights."""
        return -(-self.n // TILE) * -(-self.k // TILE)


MATMULS = (
    Matmul("gate_up", 2 * GPT_OSS_20B.inner, GPT_OSS_20B.hidden, True),
    Matmul("down", GPT_OSS_20B.hidden, GPT_OSS_20B.inner, False),
)


@dataclass(frozen=True)
class Variant:
    """A compiled configuration.

    Args:
        config: its name.
        matmuls: names of those it is for: one, or both.
        kernel: the compiled module.
        facts: what the emitting program says of it.
    """

    config: str
    matmuls: tuple[str, ...]
    kernel: Kernel
    facts: dict[str, int]

    @property
    def tokens(self) -> int:
        """Rows of activations in a tile."""
        return self.facts["tokens"]

    @property
    def is_cut(self) -> bool:
        """Whether no model has it."""
        return "cut" in self.facts

    def grid(self, rows: int, experts: int, *of_matmuls: int) -> tuple[int, int, int]:
        """Gives the blocks of a launch, as `sm90/launch.mojo` does, for matmuls of so many weight rows."""
        row_blocks = sum(-(-n // self.facts["block_rows"]) for n in of_matmuls)
        items = (rows // self.facts["tokens"] + min(rows, experts)) * row_blocks
        # Blocks of both matmuls wait for each other, so all of them must be there.
        resident = self.kernel.resident_blocks(self.facts["shared_bytes"])
        blocks = min(self.facts["blocks"], resident)
        return min(items, self.kernel.driver.multiprocessors * blocks), 1, 1


@dataclass(frozen=True)
class Routing:
    """Where tokens go, on the card.

    Args:
        order: address of the routed row at each place.
        offsets: address of the experts' first places.
        touched: experts with rows.
    """

    order: int
    offsets: int
    touched: int


def random_tiles(rng: np.random.Generator, tiles: int) -> NDArray[np.uint8]:
    """Packed weights: any codes, and scales of 2^-15 to 1."""
    packed = rng.integers(0, 256, (tiles, TILE_BYTES), dtype=np.uint8)
    packed[:, CODE_BYTES:] = rng.integers(112, 128, (tiles, TILE_BYTES - CODE_BYTES)) + SCALE_OFFSET
    return packed


def load_variants(driver: Driver, *, cuts: bool) -> list[Variant]:
    """Has the driver compile every configuration, narrow ones first; the model's before other cuts."""
    variants = []
    for program in (SM90, SM90_MLP, *([SM90_CUTS] if cuts else [])):
        for name, ptx in emit(program).items():
            both = tuple(matmul.name for matmul in MATMULS)
            of_one = both[:1] if name.endswith("_gated") else both[1:]
            matmuls = both if name.startswith("mlp") else of_one
            config = name.removesuffix("_gated")
            variants.append(Variant(config, matmuls, Kernel(driver, ptx), facts(ptx)))
    return sorted(variants, key=lambda variant: variant.tokens)


def route(card: Card, rng: np.random.Generator, tokens: int, experts: int) -> Routing:
    """Sends each token to four different experts, drawn alike."""
    sizes = replace(GPT_OSS_20B, experts=experts)
    drawn = route_tokens(rng, tokens, sizes)
    return Routing(
        card.fill(drawn.order.nbytes, drawn.order),
        card.fill(drawn.offsets.nbytes, drawn.offsets),
        drawn.touched,
    )


@dataclass(frozen=True)
class Buffers:
    """A matmul's tensors on the card: weights and bias of `POOL` experts, x and y of the most rows there are."""

    y: int
    x: int
    weights: int
    bias: int


def prepare_buffers(
    card: Card, rng: np.random.Generator, matmul: Matmul, most_tokens: int
) -> Buffers:
    """Random tensors; eight experts' weights over and over, which no cache can know."""
    rows = TOP_K * most_tokens
    return Buffers(
        y=card.driver.allocate(2 * rows * matmul.outputs),
        x=card.fill(2 * rows * matmul.k, random_bfloat16(rng, 2**20 + 1)),
        weights=card.fill(POOL * matmul.tiles * TILE_BYTES, random_tiles(rng, 8 * matmul.tiles)),
        bias=card.fill(2 * POOL * matmul.n, random_bfloat16(rng, 8 * matmul.n)),
    )


def prepare_launches(
    variant: Variant,
    matmul: Matmul,
    buffers: Buffers,
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
    *,
    overlapping: bool = False,
) -> list[Callable[[], None]]:
    """A launch for each routing, over one set of weights after the other."""
    rows, launches = TOP_K * tokens, []
    for number, routing in enumerate(routings):
        first = number % (POOL // experts) * experts
        arguments: list[Number] = [
            *(buffers.y, buffers.x, buffers.weights + first * matmul.tiles * TILE_BYTES),
            *(buffers.bias + 2 * first * matmul.n, routing.offsets, routing.order),
            *(rows, experts, matmul.n, matmul.k, TOP_K if matmul.gated else 0, np.float32(LIMIT)),
        ]
        launches.append(
            variant.kernel.prepare(
                arguments,
                grid=variant.grid(rows, experts, matmul.n),
                shared_bytes=variant.facts["shared_bytes"],
                overlapping=overlapping,
            )
        )
    return launches


def prepare_mlp(
    card: Card,
    mlp: Variant,
    buffers: Sequence[Buffers],
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
) -> Work:
    """Both matmuls in one kernel, for each routing as often as a round has it; blocks count in zeros of its own."""
    first, second = buffers
    gate_up, down = MATMULS
    rows, launches = TOP_K * tokens, []
    zeros = np.zeros(REPEATS * len(routings) * experts, np.int32)
    counts = card.fill(zeros.nbytes, zeros)
    for number, routing in enumerate(list(routings) * REPEATS):
        at = number % (POOL // experts) * experts
        arguments: list[Number] = [
            *(second.y, first.y, counts + 4 * number * experts, first.x),
            *(first.weights + at * gate_up.tiles * TILE_BYTES, first.bias + 2 * at * gate_up.n),
            *(second.weights + at * down.tiles * TILE_BYTES, second.bias + 2 * at * down.n),
            *(routing.offsets, routing.order, rows, experts, gate_up.k, down.k),
            *(TOP_K, np.float32(LIMIT)),
        ]
        launches.append(
            mlp.kernel.prepare(
                arguments,
                grid=mlp.grid(rows, experts, gate_up.n, down.n),
                shared_bytes=mlp.facts["shared_bytes"],
                overlapping=True,
            )
        )
    return Work(mlp.config, launches, lambda: card.driver.upload(counts, zeros))


def prepare_pair(
    pair: Sequence[Variant],
    buffers: Sequence[Buffers],
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
    *,
    overlapping: bool,
) -> Work:
    """Both matmuls by a kernel each, the second on what the first gives."""
    first, second = buffers
    of_matmuls = zip(pair, MATMULS, (first, replace(second, x=first.y)), strict=True)
    in_turn = [
        prepare_launches(*of_matmul, routings, tokens, experts, overlapping=overlapping)
        for of_matmul in of_matmuls
    ]
    launches = [launch for layer in zip(*in_turn, strict=True) for launch in layer]
    repeats = REPEATS if tokens <= FEW_TOKENS else 1
    return Work(pair[0].config, launches * repeats)


def is_chosen(variant: Variant, variants: Sequence[Variant], rows: int, experts: int) -> bool:
    """Tells whether `choose_config` takes a variant, as the emitting program says; of another cut it says nothing."""
    fact = f"chosen_from_{experts}"
    chosen_from = [other.facts.get(fact, rows + 1) for other in variants]
    taken = max(rows_from for rows_from in chosen_from if rows_from <= rows)
    return variant.facts.get(fact) == taken


def describe_times(
    times: Sequence[float], rows: int, touched: float, weights_of_expert: int
) -> dict[str, Any]:
    """Least, median and most, and what the median is in bytes of touched experts and in operations."""
    median = statistics.median(times)
    return {
        "us": [1e6 * t for t in (times[0], median, times[-1])],
        "GB_per_s": touched * weights_of_expert * BYTES_PER_WEIGHT / median / 1e9,
        "TFLOP_per_s": 2 * rows * weights_of_expert / median / 1e12,
    }


def measure_group(
    card: Card,
    variants: Sequence[Variant],
    matmul: Matmul,
    buffers: Buffers,
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
) -> list[dict[str, Any]]:
    """Times every configuration on the same work, and compares what they give with the first one's."""
    rows = TOP_K * tokens
    touched = statistics.mean(routing.touched for routing in routings)
    weights_of_expert = matmul.n * matmul.k
    repeats = REPEATS if tokens <= FEW_TOKENS else 1
    works, results = [], []
    for variant in variants:
        launches = prepare_launches(variant, matmul, buffers, routings, tokens, experts)
        works.append(Work(variant.config, launches * repeats))
        y = run(card, works[-1], buffers.y, rows * matmul.outputs)
        results.append(decode_bfloat16(y))
    largest = np.abs(results[0]).max()
    return [
        {
            "matmul": matmul.name,
            "tokens": tokens,
            "experts": touched,
            "config": variant.config,
            "chosen": is_chosen(variant, variants, rows, experts),
            **describe_times(times, rows, touched, weights_of_expert),
            "difference": float(np.abs(result - results[0]).max() / largest),
        }
        for variant, result, times in zip(variants, results, card.seconds(works), strict=True)
    ]


def run(card: Card, work: Work, output: int, elements: int) -> NDArray[np.uint16]:
    """Runs a work, and gives what it leaves at an address, or of much the beginning."""
    y = np.full(min(elements, COMPARED), NAN, np.uint16)
    card.driver.upload(output, y)
    card.run(work)
    card.driver.download(output, y)
    return y


@dataclass(frozen=True)
class Way:
    """How both matmuls of a layer are launched.

    Args:
        name: what it is called.
        work: launches of a round.
        per_layer: launches of a layer.
        is_cut: whether it is another cut than the model's, which sums in another order.
    """

    name: str
    work: Work
    per_layer: int
    is_cut: bool


def find_ways(
    card: Card,
    variants: Sequence[Variant],
    buffers: Sequence[Buffers],
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
) -> list[Way]:
    """Gives the chosen configurations in turn and overlapping, and whatever else has tiles of as many rows."""
    of_gate_up, of_down = (
        {v.config: v for v in variants if v.matmuls == (matmul.name,)} for matmul in MATMULS
    )
    [chosen] = (
        config
        for config, variant in of_gate_up.items()
        if is_chosen(variant, [*of_gate_up.values()], TOP_K * tokens, experts)
    )
    case = buffers, routings, tokens, experts
    pair = of_gate_up[chosen], of_down[chosen]
    ways = [Way("in turn", prepare_pair(pair, *case, overlapping=False), len(pair), False)]
    for config, variant in of_gate_up.items():
        if config == chosen or (variant.is_cut and variant.tokens == pair[0].tokens):
            work = prepare_pair((variant, of_down[config]), *case, overlapping=True)
            ways.append(Way(f"overlapping {config}", work, len(pair), variant.is_cut))
    for variant in variants:
        if len(variant.matmuls) == len(MATMULS) and variant.tokens == pair[0].tokens:
            work = prepare_mlp(card, variant, *case)
            ways.append(Way(f"one kernel {variant.config}", work, 1, variant.is_cut))
    return ways


def measure_layer(
    card: Card, ways: Sequence[Way], y: int, routings: Sequence[Routing], tokens: int
) -> list[dict[str, Any]]:
    """Times both matmuls each way, and compares what they leave at y with the first one's."""
    rows = TOP_K * tokens
    touched = statistics.mean(routing.touched for routing in routings)
    weights_of_expert = sum(matmul.n * matmul.k for matmul in MATMULS)
    results = [run(card, way.work, y, rows * MATMULS[-1].outputs) for way in ways]
    first = decode_bfloat16(results[0])
    layers = []
    for way, result, times in zip(
        ways, results, card.seconds([way.work for way in ways]), strict=True
    ):
        difference = float(np.abs(decode_bfloat16(result) - first).max() / np.abs(first).max())
        of_layer = [way.per_layer * t for t in times]
        layers.append(
            {
                "tokens": tokens,
                "experts": touched,
                "way": way.name,
                **describe_times(of_layer, rows, touched, weights_of_expert),
                "difference": difference,
                "right": bool(
                    difference <= DIFFERENCE if way.is_cut else (result == results[0]).all()
                ),
            }
        )
    return layers


def print_layer(model: str, layers: Sequence[dict[str, Any]], roof: float) -> None:
    """Prints a line for each way."""
    for layer in layers:
        low, median, high = layer["us"]
        print(
            f"{model:5} layer    {layer['tokens']:6} {layer['experts']:7.1f}"
            f" {layer['way']:24}"
            f" {low:9.1f} {median:8.1f} {high:8.1f} {layer['GB_per_s']:7.0f} {layer['GB_per_s'] / roof:7.0%}"
            f" {layer['TFLOP_per_s']:9.1f}{'' if layer['right'] else '   DIFFERS'}",
            flush=True,
        )


def print_group(model: str, cases: Sequence[dict[str, Any]], roof: float) -> None:
    """Prints a line for each configuration."""
    fastest = min(case["us"][1] for case in cases)
    for case in cases:
        low, median, high = case["us"]
        print(
            f"{model:5} {case['matmul']:8} {case['tokens']:6} {case['experts']:7.1f} {case['config']:12}"
            f"{'*' if case['chosen'] else ' '}{'<' if median == fastest else ' '}"
            f" {low:9.1f} {median:8.1f} {high:8.1f} {case['GB_per_s']:7.0f} {case['GB_per_s'] / roof:7.0%}"
            f" {case['TFLOP_per_s']:9.1f}"
            f"{'' if case['difference'] <= DIFFERENCE else '   DIFFERS'}",
            flush=True,
        )


def print_variants(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Prints what the driver's compiler made of each kernel."""
    kernels = []
    print("config       matmul       registers local bytes blocks to a multiprocessor (meant)")
    for variant in variants:
        kernel = variant.kernel
        registers, local = kernel.attribute(NUM_REGS), kernel.attribute(LOCAL_SIZE_BYTES)
        blocks = kernel.resident_blocks(variant.facts["shared_bytes"])
        meant = variant.facts["blocks"]
        print(
            f"{variant.config:12} {'+'.join(variant.matmuls):12} {registers:9} {local:11} {blocks} ({meant})"
        )
        kernels.append(
            {
                "config": variant.config,
                "matmuls": variant.matmuls,
                "registers": registers,
                "local_bytes": local,
                "blocks": blocks,
            }
        )
    return kernels


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON if asked to; 1 if two configurations give different results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, nargs="+", help="default: those of each model")
    parser.add_argument("--cuts", action="store_true", help="also ways to cut that no model takes")
    arguments = parser.parse_args(words)
    card, rng = open_card(parser, arguments.rounds), np.random.default_rng(0)
    driver = card.driver
    variants = load_variants(driver, cuts=arguments.cuts)
    report: dict[str, Any] = {
        "gpu": driver.name,
        "driver": driver.version,
        "kernels": print_variants(variants),
    }
    roof = card.copy_rate()
    report["roofs"] = {"copy_GB_per_s": roof}
    print(f"{driver.name}, copy_GB_per_s {roof:.0f}")
    print(
        "model matmul   tokens experts config          us: min   median      max    GB/s of copy   TFLOP/s"
    )
    cases: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    of_model = {model: arguments.tokens or TOKENS[model] for model in EXPERTS}
    most_tokens = max(max(tokens) for tokens in of_model.values())
    buffers = [prepare_buffers(card, rng, matmul, most_tokens) for matmul in MATMULS]
    for model, experts in EXPERTS.items():
        for tokens in of_model[model]:
            routings = [route(card, rng, tokens, experts) for _ in range(ROUTINGS)]
            for matmul, tensors in zip(MATMULS, buffers, strict=True):
                of_matmul = [x for x in variants if x.matmuls == (matmul.name,)]
                group = measure_group(card, of_matmul, matmul, tensors, routings, tokens, experts)
                print_group(model, group, roof)
                cases += [{"model": model, **case} for case in group]
            ways = find_ways(card, variants, buffers, routings, tokens, experts)
            of_layer = measure_layer(card, ways, buffers[-1].y, routings, tokens)
            print_layer(model, of_layer, roof)
            layers += [{"model": model, **layer} for layer in of_layer]
            if arguments.output:  # as far as it is, in case that a kernel never ends
                whole = {**report, "layers": layers, "cases": cases}
                arguments.output.write_text(json.dumps(whole, indent=2) + "\n")
    same = all(layer["right"] for layer in layers)
    return int(not same or any(not case["difference"] <= DIFFERENCE for case in cases))


if __name__ == "__main__":
    sys.exit(main())
