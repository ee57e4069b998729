"""Hopper's grouped matmul alone: every configuration at every number of tokens, timed by the card itself.

    ./run python benchmarks/sm90/bench_kernels.py [--output FILE] [--rounds N] [--tokens N ...]

Both matmuls of a layer at 20b's sizes, and at 120b's. A round's launches take 16 routings in turn, and for 20b four
sets of weights, so that no cache holds what comes next; events on the card time them, behind a copy that keeps it
busy until they are queued. What is counted: bytes of every expert that a token goes to, once, and 2 * rows * N * K
operations. `*` marks the configuration that `choose_config` takes, `<` the fastest. Then a layer: both matmuls in
those configurations, the second on what the first gives: in turn; overlapping, which is begun before the kernel
before is over, and waiting for it; and of few tokens in one kernel, as the model launches them if asked to. The roof
is a copy of 1 GiB in the same process. Needs NumPy, an NVIDIA driver and Mojo, or in Mojo's place the PTX that
`python -m tests.custom_ops.mxfp4.ptx` writes, where MXFP4_PTX names it.
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

from benchmarks.sm90.cases import BYTES_PER_WEIGHT, GPT_OSS_20B, LIMIT, route_tokens
from benchmarks.sm90.cases import TOKENS as TOKENS_20B
from tests.cuda_driver.driver import (
    LOCAL_SIZE_BYTES,
    NUM_REGS,
    CudaError,
    Driver,
    Kernel,
    Number,
    open_library,
)
from tests.custom_ops.mxfp4.ptx import SM90, SM90_MLP, emit, facts
from tests.reference.bfloat16 import decode_bfloat16
from tests.reference.sm90_tiles import CODE_BYTES, SCALE_OFFSET, TILE, TILE_BYTES

EXPERTS = {"20b": 32, "120b": 128}
POOL = 128
"""Experts with weights on the card: 120b's, or 20b's four times."""
TOKENS = {"20b": TOKENS_20B, "120b": (1, 4, 16, 64, 1024, 4096)}
TOP_K = GPT_OSS_20B.top_k
ROUTINGS = 16
REPEATS = 4
"""Of each routing in a round, where tokens are few and launches short."""
COPY_BYTES = 2**30
NAN = 0x7FC0
"""What the output holds before: what a configuration leaves out is seen."""
COMPARED = 2**20
"""Outputs that are compared, from the first row on."""
DIFFERENCE = 2**-7
"""Of the largest output: other orders of float32 sums, rounded to bfloat16."""


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
        gated: whether SwiGLU follows.
        kernel: the compiled module.
        facts: what the emitting program says of it.
    """

    config: str
    gated: bool
    kernel: Kernel
    facts: dict[str, int]

    def grid(self, rows: int, experts: int, *of_matmuls: int) -> tuple[int, int, int]:
        """Gives the blocks of a launch, as `sm90/launch.mojo` does, for matmuls of so many weight rows."""
        row_blocks = sum(-(-n // self.facts["block_rows"]) for n in of_matmuls)
        items = (rows // self.facts["tokens"] + min(rows, experts)) * row_blocks
        return min(items, self.kernel.driver.multiprocessors * self.facts["blocks"]), 1, 1


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


class Card:
    """The GPU: what times it, and memory filled with random numbers.

    Args:
        driver: the GPU.
        rounds: how often each thing is timed.
    """

    def __init__(self, driver: Driver, rounds: int) -> None:
        self.driver, self._rounds = driver, rounds
        self._first, self._last = driver.create_event(), driver.create_event()
        self._spare = driver.allocate(2 * COPY_BYTES)

    def fill(self, size: int, pattern: NDArray[Any]) -> int:
        """Allocates bytes that hold an array over and over."""
        address = self.driver.allocate(size)
        filled = min(size, pattern.nbytes)
        self.driver.upload(address, pattern.reshape(-1).view(np.uint8)[:filled])
        while filled < size:
            step = min(filled, size - filled)
            self.driver.copy(address + filled, address, step)
            filled += step
        self.driver.synchronize()
        return address

    def copy(self) -> None:
        """Begins the copy that is the roof."""
        self.driver.copy(self._spare + COPY_BYTES, self._spare, COPY_BYTES)

    def copy_rate(self) -> float:
        """Times that copy: GB/s, what is read and what is written."""
        return 2 * COPY_BYTES / statistics.median(self.seconds([self.copy])) / 1e9

    def seconds(
        self,
        launches: Sequence[Callable[[], None]],
        of: str = "",
        prepare: Callable[[], None] | None = None,
    ) -> list[float]:
        """Times each round's launches, one after the other, sorted; for one launch of the round."""
        times = []
        for round_number in range(self._rounds + 1):
            if prepare:
                prepare()
            self.copy()  # keeps the card busy while launches queue up, and its cache full of other things
            self.driver.record(self._first)
            for launch in launches:
                launch()
            self.driver.record(self._last)
            self.driver.synchronize(of=of)
            if round_number:  # the first one warms up
                times.append(self.driver.seconds(self._first, self._last) / len(launches))
        return sorted(times)


def open_card(parser: argparse.ArgumentParser, rounds: int) -> Card:
    """Opens the GPU, or ends the program as for a wrong argument."""
    try:
        return Card(Driver(open_library()), rounds)
    except CudaError as error:
        parser.error(str(error))


def random_bfloat16(rng: np.random.Generator, elements: int) -> NDArray[np.uint16]:
    """Normal values of bfloat16, as bits."""
    bits = rng.standard_normal(elements, dtype=np.float32).view(np.uint32) >> 16
    return bits.astype(np.uint16)


def random_tiles(rng: np.random.Generator, tiles: int) -> NDArray[np.uint8]:
    """Packed weights: any codes, and scales of 2^-15 to 1."""
    packed = rng.integers(0, 256, (tiles, TILE_BYTES), dtype=np.uint8)
    packed[:, CODE_BYTES:] = rng.integers(112, 128, (tiles, TILE_BYTES - CODE_BYTES)) + SCALE_OFFSET
    return packed


def load_variants(driver: Driver) -> list[Variant]:
    """Has the driver compile every configuration, narrow ones first."""
    variants = [
        Variant(
            name.removesuffix("_gated"), name.endswith("_gated"), Kernel(driver, ptx), facts(ptx)
        )
        for name, ptx in emit(SM90).items()
    ]
    return sorted(variants, key=lambda variant: variant.facts["tokens"])


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


def load_mlps(driver: Driver) -> dict[int, Variant]:
    """Has the driver compile the kernels of both matmuls, by the tokens of a tile."""
    variants = [
        Variant(name, True, Kernel(driver, ptx), facts(ptx)) for name, ptx in emit(SM90_MLP).items()
    ]
    return {variant.facts["tokens"]: variant for variant in variants}


@dataclass(frozen=True)
class Layer:
    """A layer's launches of one kind.

    Args:
        way: how both matmuls are launched.
        launches: of a round, in order.
        per_layer: launches of a layer.
        prepare: what is to be done before each round, if anything.
    """

    way: str
    launches: Sequence[Callable[[], None]]
    per_layer: int
    prepare: Callable[[], None] | None = None


def prepare_mlp(
    card: Card,
    mlp: Variant,
    buffers: Sequence[Buffers],
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
) -> Layer:
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
    return Layer("one kernel", launches, 1, lambda: card.driver.upload(counts, zeros))


def is_chosen(variant: Variant, variants: Sequence[Variant], rows: int, experts: int) -> bool:
    """Tells whether `choose_config` takes a variant, as the emitting program says."""
    chosen_from = [other.facts[f"chosen_from_{experts}"] for other in variants]
    taken = max(rows_from for rows_from in chosen_from if rows_from <= rows)
    return variant.facts[f"chosen_from_{experts}"] == taken


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
    reference: NDArray[Any] | None = None
    cases = []
    for variant in variants:
        y = np.full(min(rows * matmul.outputs, COMPARED), NAN, np.uint16)
        card.driver.upload(buffers.y, y)
        launches = prepare_launches(variant, matmul, buffers, routings, tokens, experts)
        repeats = REPEATS if tokens <= 64 else 1
        times = card.seconds(launches * repeats, of=variant.config)
        card.driver.download(buffers.y, y)
        result = decode_bfloat16(y)
        reference = result if reference is None else reference
        cases.append(
            {
                "matmul": matmul.name,
                "tokens": tokens,
                "experts": touched,
                "config": variant.config,
                "chosen": is_chosen(variant, variants, rows, experts),
                **describe_times(times, rows, touched, weights_of_expert),
                "difference": float(np.abs(result - reference).max() / np.abs(reference).max()),
            }
        )
    return cases


def measure_layer(
    card: Card,
    variants: Sequence[Variant],
    mlps: dict[int, Variant],
    buffers: Sequence[Buffers],
    routings: Sequence[Routing],
    tokens: int,
    experts: int,
) -> list[dict[str, Any]]:
    """Times both matmuls in the chosen configurations: one after the other, overlapping, and in one kernel."""
    rows = TOP_K * tokens
    touched = statistics.mean(routing.touched for routing in routings)
    weights_of_expert = sum(matmul.n * matmul.k for matmul in MATMULS)
    first, second = buffers
    tensors = (first, replace(second, x=first.y))
    ways = []
    for overlapping in (False, True):
        in_turn: list[list[Callable[[], None]]] = []
        for matmul, of_matmul in zip(MATMULS, tensors, strict=True):
            fitting = [variant for variant in variants if variant.gated == matmul.gated]
            (chosen,) = (x for x in fitting if is_chosen(x, fitting, rows, experts))
            in_turn.append(
                prepare_launches(
                    *(chosen, matmul, of_matmul, routings, tokens, experts), overlapping=overlapping
                )
            )
        launches = [launch for layer in zip(*in_turn, strict=True) for launch in layer]
        repeats = REPEATS if tokens <= 64 else 1
        ways.append(Layer("overlapping" if overlapping else "in turn", launches * repeats, 2))
    if chosen.facts["tokens"] in mlps:
        mlp = mlps[chosen.facts["tokens"]]
        ways.append(prepare_mlp(card, mlp, buffers, routings, tokens, experts))
    layers: list[dict[str, Any]] = []
    reference: NDArray[Any] | None = None
    for way in ways:
        y = np.full(min(rows * MATMULS[-1].outputs, COMPARED), NAN, np.uint16)
        card.driver.upload(second.y, y)
        times = [way.per_layer * t for t in card.seconds(way.launches, "a layer", way.prepare)]
        card.driver.download(second.y, y)
        reference = y if reference is None else reference
        layers.append(
            {
                "tokens": tokens,
                "experts": touched,
                "way": way.way,
                **describe_times(times, rows, touched, weights_of_expert),
                "same_bits": bool((y == reference).all()),
            }
        )
    return layers


def print_layer(model: str, layers: Sequence[dict[str, Any]], roof: float) -> None:
    """Prints a line for each way."""
    for layer in layers:
        low, median, high = layer["us"]
        print(
            f"{model:5} layer    {layer['tokens']:6} {layer['experts']:7.1f}"
            f" {layer['way']:14}"
            f" {low:9.1f} {median:8.1f} {high:8.1f} {layer['GB_per_s']:7.0f} {layer['GB_per_s'] / roof:7.0%}"
            f" {layer['TFLOP_per_s']:9.1f}{'' if layer['same_bits'] else '   DIFFERS'}",
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
    print("config       gated registers local bytes blocks to a multiprocessor (meant)")
    for variant in variants:
        kernel = variant.kernel
        registers, local = kernel.attribute(NUM_REGS), kernel.attribute(LOCAL_SIZE_BYTES)
        blocks = kernel.resident_blocks(variant.facts["shared_bytes"])
        meant = variant.facts["blocks"]
        print(
            f"{variant.config:12} {variant.gated!s:5} {registers:9} {local:11} {blocks} ({meant})"
        )
        kernels.append(
            {
                "config": variant.config,
                "gated": variant.gated,
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
    arguments = parser.parse_args(words)
    card, rng = open_card(parser, arguments.rounds), np.random.default_rng(0)
    driver = card.driver
    variants, mlps = load_variants(driver), load_mlps(driver)
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
                of_matmul = [x for x in variants if x.gated == matmul.gated]
                group = measure_group(card, of_matmul, matmul, tensors, routings, tokens, experts)
                print_group(model, group, roof)
                cases += [{"model": model, **case} for case in group]
            of_layer = measure_layer(card, variants, mlps, buffers, routings, tokens, experts)
            print_layer(model, of_layer, roof)
            layers += [{"model": model, **layer} for layer in of_layer]
            if arguments.output:  # as far as it is, in case that a kernel never ends
                whole = {**report, "layers": layers, "cases": cases}
                arguments.output.write_text(json.dumps(whole, indent=2) + "\n")
    same = all(layer["same_bits"] for layer in layers)
    return int(not same or any(not case["difference"] <= DIFFERENCE for case in cases))


if __name__ == "__main__":
    sys.exit(main())
