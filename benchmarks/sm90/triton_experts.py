"""Both expert matmuls of a layer of 20b by Triton's `triton_kernels`, timed as bench_experts.py times ours.

    PYTHONPATH=. python benchmarks/sm90/triton_experts.py [--output FILE] [--ours experts.json] [--runs N]
        [--tokens N ...]

A process of its own, whose Python needs torch, Triton, `triton_kernels` as of Triton 3.5.1 (vLLM has it as
`vllm/third_party/triton_kernels`; its parent folder goes on PYTHONPATH) and NumPy, not MAX. Without them it says so in
one line and ends well.

The same cases: sizes, routing and what is counted come from `cases.py`, weights are four sets drawn alike; gathering
of rows, bias and SwiGLU are in the first matmul on both sides, and the second leaves its rows sorted by expert. Three
groups of ways are timed, and the fastest of each is told:

- MXFP4: theirs, in its swizzled layouts and with its own choice of tiles; 8 or 4 warps to a block, and k split as vLLM
  has it on Hopper (not at all) or as their heuristics would;
- bfloat16: the same function over experts written out once, 3.8 times the memory;
- dequantized: each layer first writes all of its experts out as bfloat16, by their kernel, then multiplies as above.
  MAX's own grouped matmul would do for it, but MAX 26.7.0 does not compile that for Hopper (NOTES F72).

GB/s counts MXFP4's bytes in all three. CUDA events time 20 layers, as a CUDA graph and as plain launches, and the
faster counts; ours are timed by the host, their launches included. Before a way is timed its first layer is compared
with weights dequantized to float32: a layout taken wrongly is never timed, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sm90.cases import (
    GPT_OSS_20B,
    HEADER,
    LAYERS,
    SEED,
    TOKENS,
    WARM_UP_RUNS,
    WEIGHT_SETS,
    Sizes,
    draw_routing,
    format_case,
    summarize,
)

if TYPE_CHECKING:
    from benchmarks.sm90.triton_layer import Case, Layer

NEEDED = ("torch", "triton", "triton_kernels")
GENERATION = "3.5.1"
GROUPS = ("MXFP4", "bfloat16", "dequantized")
MAX_RMS_ERROR = 1e-2
"""Of the reference's root mean square: two roundings to bfloat16 make 3e-3, a wrong layout more than 1."""


def find_missing() -> list[str]:
    """Lists what this Python lacks, without importing any of it."""
    return [name for name in NEEDED if find_spec(name) is None]


def time_runs(launch: Callable[[], None], runs: int) -> list[float]:
    """Times launches by the device's clock, in seconds."""
    import torch

    times = []
    for run in range(runs + WARM_UP_RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        launch()
        end.record()
        torch.cuda.synchronize()
        if run >= WARM_UP_RUNS:
            times.append(1e-3 * begin.elapsed_time(end))
    return times


def time_layers(launch: Callable[[], None], runs: int) -> tuple[str, list[float]]:
    """Times as plain launches and as a CUDA graph, and gives the faster way's times."""
    import torch

    plain = time_runs(launch, runs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    ways = {"plain": plain, "graph": time_runs(graph.replay, runs)}
    way = min(ways, key=lambda name: statistics.median(ways[name]))
    return way, ways[way]


class Bench:
    """Weights in every layout, and cases over them."""

    def __init__(self, sizes: Sizes, device: str) -> None:
        import torch

        from benchmarks.sm90.triton_layer import Case, draw_experts, make_layers

        torch.manual_seed(SEED)
        torch.backends.cuda.matmul.allow_tf32 = False  # the reference's
        self.sizes, self.device, self.case_type = sizes, device, Case
        shapes = ((2 * sizes.inner, sizes.hidden), (sizes.hidden, sizes.inner))
        sets = []
        for _ in range(WEIGHT_SETS):
            up, down = (draw_experts(sizes.experts, n, k, device) for n, k in shapes)
            sets.append((up, down))
        self.first, self.groups = sets[0], make_layers(sets)

    def make_case(self, tokens: int) -> Case:
        """Draws tokens."""
        import torch

        x = torch.randn(tokens, self.sizes.hidden, device=self.device).bfloat16()
        return self.case_type(x, draw_routing(tokens, self.sizes), self.sizes)

    def measure(self, tokens: int, runs: int) -> dict[str, Any]:
        """Times a case.

        Returns:
            By group the record of its fastest way, with the medians of all; errors of the ways that were wrong.
        """
        case = self.make_case(tokens)
        want = case.compute_reference(*self.first)
        record: dict[str, Any] = {"tokens": tokens, "wrong": {}}
        for group, ways in self.groups.items():
            found = []
            for name, layers in ways.items():
                error = find_error(case, layers[0], want)
                if not error <= MAX_RMS_ERROR:  # nor NaN
                    record["wrong"][f"{group}, {name}"] = error
                    continue
                launches, times = time_layers(partial(run_layers, case, layers), runs)
                summary = summarize(tokens, [t / LAYERS for t in times], self.sizes)
                found.append({**summary, "way": name, "launches": launches})
            if found:
                medians = {way["way"]: way["us"][1] for way in found}
                record[group] = {**min(found, key=lambda way: way["us"][1]), "ways_us": medians}
        return record


def find_error(case: Case, layer: Layer, want: Any) -> float:
    """Runs a layer; gives the root mean square of what is wrong, as a share of the reference's."""
    case.y.fill_(float("nan"))
    layer(case)
    difference = case.y[0].float() - want
    return float(difference.square().mean().sqrt() / want.square().mean().sqrt())


def run_layers(case: Case, layers: Sequence[Layer]) -> None:
    """Launches the layers of one timing."""
    for index in range(LAYERS):
        layers[index % len(layers)](case)


def read_ours(path: Path) -> tuple[dict[str, float], dict[int, float]]:
    """Reads what bench_experts.py wrote: the card's roofs, and the median of each case."""
    report = json.loads(path.read_text())
    return report["roofs"], {case["tokens"]: case["us"][1] for case in report["cases"]}


def format_lines(
    record: Mapping[str, Any], roofs: Mapping[str, float] | None, ours: Mapping[int, float]
) -> Iterator[str]:
    """Makes a case's lines: a group each, how many times ours it takes, where ours is known, and in which way."""
    for name, error in record["wrong"].items():
        yield f"{record['tokens']:6} {name}: wrong by {error:.1e} of the outputs, not timed"
    for group in GROUPS:
        if case := record.get(group):
            ratio = ""
            if case["tokens"] in ours:
                ratio = f"{case['us'][1] / ours[case['tokens']]:.2f}"
            way = f"{group}: {case['way']}, {case['launches']}"
            yield f"{format_case(case, roofs)} {ratio:>8}  {way}"


def find_version(package: str) -> str | None:
    """Gives a package's version; None for one that is only on the path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> int:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--ours", type=Path, help="what bench_experts.py wrote, to be set beside")
    parser.add_argument("--runs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    arguments = parser.parse_args()
    if missing := find_missing():
        print(f"skipped: this Python has no {', no '.join(missing)}")
        return 0
    try:
        import benchmarks.sm90.triton_layer  # noqa: F401
    except ImportError as error:
        parser.error(
            f"triton_kernels must be as of Triton {GENERATION}, this is another version: {error}"
        )
    import torch

    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        parser.error("torch finds no Hopper GPU on this machine")
    roofs, ours = read_ours(arguments.ours) if arguments.ours else (None, {})
    bench = Bench(GPT_OSS_20B, "cuda")
    print(f"{HEADER}   x ours")
    cases = []
    for tokens in arguments.tokens:
        cases.append(bench.measure(tokens, arguments.runs))
        print("\n".join(format_lines(cases[-1], roofs, ours)), flush=True)
    if arguments.output:
        report = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "triton": find_version("triton"),
            "triton_kernels": f"as of Triton {GENERATION}",
            "cases": cases,
        }
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(case["wrong"] for case in cases))


if __name__ == "__main__":
    sys.exit(main())
