"""Both expert matmuls of a layer of 20b on a Hopper GPU, against the card's own copy bandwidth and matmul rate.

    ./run python benchmarks/sm90/bench_experts.py [--output FILE] [--runs N] [--tokens N ...]

Each case runs 20 layers in one graph over four different sets of weights (1.7 GB, no cache holds them) and takes the
median over runs of the time for one layer. What is counted: bytes of every expert that a token goes to, once, and
2 * rows * N * K operations. The roofs are measured in the same process: a bfloat16 copy of 1 GiB, and a bfloat16 matmul
of 8192 by 8192 by 8192 of MAX's. Times are of whole graphs, as the host sees them: a layer's two kernels may
take less for one token than their launches do. Needs MAX's runtime and NumPy. `triton_experts.py` times the same cases
by Triton's kernels, and with weights dequantized first, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from max.driver import Accelerator, Buffer, Device, accelerator_architecture_name, accelerator_count
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from benchmarks.sm90.cases import (
    GPT_OSS_20B,
    HEADER,
    LAYERS,
    LIMIT,
    SCALES,
    SEED,
    TOKENS,
    WARM_UP_RUNS,
    WEIGHT_SETS,
    draw_routing,
    format_case,
    summarize,
)
from gpt_oss_mxfp4 import ops

EXPERTS, HIDDEN, INNER = GPT_OSS_20B.experts, GPT_OSS_20B.hidden, GPT_OSS_20B.inner
BYTES = range(256)
GPU = DeviceRef.GPU()


def load(
    device: Device, name: str, types: list[TensorType], body: Callable[..., list[TensorValue]]
) -> Model:
    """Compiles a graph of this package's ops."""
    with Graph(name, input_types=types, custom_extensions=[ops.custom_ops()]) as graph:
        graph.output(*body(*(value.tensor for value in graph.inputs)))
    return InferenceSession(devices=[device]).load(graph)


def seconds(device: Device, model: Model, inputs: list[Buffer], runs: int) -> list[float]:
    """Times whole executions, sorted."""
    times = []
    for run in range(runs + WARM_UP_RUNS):
        device.synchronize()
        begin = time.perf_counter()
        results = model.execute(*inputs)
        device.synchronize()
        if run >= WARM_UP_RUNS:
            times.append(time.perf_counter() - begin)
        del results
    return sorted(times)


def random_bytes(
    device: Device, rng: np.random.Generator, *shape: int, among: range = BYTES
) -> Buffer:
    """Random bytes on a device."""
    drawn = rng.integers(among.start, among.stop, shape, dtype=np.uint8)
    return Buffer.from_numpy(drawn).to(device)


def random_bfloat16(device: Device, rng: np.random.Generator, *shape: int) -> Buffer:
    """Normal values of bfloat16 on a device."""
    bits = rng.standard_normal(shape, dtype=np.float32).view(np.uint32) >> 16
    return Buffer.from_numpy(bits.astype(np.uint16)).view(DType.bfloat16).to(device)


def measure_roofs(device: Device, rng: np.random.Generator, runs: int) -> dict[str, float]:
    """Copies and multiplies as fast as MAX does on this card."""
    elements, edge, repeats = 2**29, 8192, 8
    copy = load(
        device,
        "copy",
        [TensorType(DType.bfloat16, [elements], GPU)],
        lambda x: [x + 1],
    )
    copied = seconds(device, copy, [random_bfloat16(device, rng, elements)], runs)

    def multiply(a: TensorValue, b: TensorValue) -> list[TensorValue]:
        for _ in range(repeats):
            a = a @ b.transpose(0, 1)  # as dense layers have it, which tensor cores take as it is
        return [a]

    square = TensorType(DType.bfloat16, [edge, edge], GPU)
    matmul = load(device, "matmul", [square, square], multiply)
    matrices = [random_bfloat16(device, rng, edge, edge) for _ in range(2)]
    multiplied = seconds(device, matmul, matrices, runs)
    return {
        "copy_GB_per_s": 2 * 2 * elements / statistics.median(copied) / 1e9,
        "matmul_TFLOP_per_s": repeats * 2 * edge**3 / statistics.median(multiplied) / 1e12,
    }


def measure_dequantize(device: Device, rng: np.random.Generator, runs: int) -> float:
    """Times what dequantizing before multiplying begins with: a layer's experts written out as bfloat16, in seconds."""
    types, inputs = [], []
    for n, k in ((2 * INNER, HIDDEN), (HIDDEN, INNER)):
        for shape, among in (((EXPERTS, n, k // 32, 16), BYTES), ((EXPERTS, n, k // 32), SCALES)):
            types.append(TensorType(DType.uint8, list(shape), GPU))
            inputs.append(random_bytes(device, rng, *shape, among=among))

    def body(*w: TensorValue) -> list[TensorValue]:
        return [ops.dequantize(w[i], w[i + 1], DType.bfloat16) for i in (0, 2)]

    return statistics.median(seconds(device, load(device, "dequantize", types, body), inputs, runs))


def pack_layers(device: Device, rng: np.random.Generator) -> list[Buffer]:
    """Random weights, packed on the device: tiles and bias of both matmuls, for each set."""
    buffers = []
    for n, k in ((2 * INNER, HIDDEN), (HIDDEN, INNER)):
        model = load(
            device,
            f"pack_{n}",
            [
                TensorType(DType.uint8, [EXPERTS, n, k // 32, 16], GPU),
                TensorType(DType.uint8, [EXPERTS, n, k // 32], GPU),
            ],
            lambda b, s: [ops.swizzle(b, s)],
        )
        for _ in range(WEIGHT_SETS):
            blocks = random_bytes(device, rng, EXPERTS, n, k // 32, 16)
            scales = random_bytes(device, rng, EXPERTS, n, k // 32, among=SCALES)
            bias = random_bfloat16(device, rng, EXPERTS, n)
            buffers.append((model.execute(blocks, scales)[0], bias))
    gate_up, down = buffers[:WEIGHT_SETS], buffers[WEIGHT_SETS:]
    return [x for pair in zip(gate_up, down, strict=True) for tensors in pair for x in tensors]


def layers_model(device: Device, weights: list[Buffer]) -> Model:
    """Compiles the layers, for any number of tokens."""
    types = [
        TensorType(DType.bfloat16, ["tokens", HIDDEN], GPU),
        TensorType(DType.int32, ["rows"], GPU),
        TensorType(DType.int32, [EXPERTS + 1], GPU),
        *(TensorType(buffer.dtype, list(buffer.shape), GPU) for buffer in weights),
    ]

    def body(x: TensorValue, order: TensorValue, offsets: TensorValue, *w: TensorValue) -> Any:
        results = []
        for layer in range(LAYERS):
            tiles, bias, down_tiles, down_bias = w[4 * (layer % WEIGHT_SETS) :][:4]
            # Each layer's limit is another, so that no two are one to the compiler.
            limit = LIMIT + layer / 64
            h = ops.grouped_matmul_swiglu_packed(x, tiles, bias, offsets, order, limit)
            results.append(
                ops.grouped_matmul_packed(h, down_tiles, down_bias, offsets, x_follows_offsets=True)
            )
        return results

    return load(device, "layers", types, body)


def measure_case(
    device: Device,
    model: Model,
    weights: list[Buffer],
    tokens: int,
    runs: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Times a layer."""
    routing = draw_routing(tokens)
    inputs = [
        random_bfloat16(device, rng, tokens, HIDDEN),
        Buffer.from_numpy(routing.order).to(device),
        Buffer.from_numpy(routing.offsets).to(device),
        *weights,
    ]
    return summarize(tokens, [t / LAYERS for t in seconds(device, model, inputs, runs)])


def main() -> int:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--runs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    arguments = parser.parse_args()
    if not accelerator_count():
        parser.error("MAX finds no GPU on this machine")
    device, rng = Accelerator(), np.random.default_rng(SEED)
    roofs = measure_roofs(device, rng, arguments.runs)
    print(", ".join(f"{name} {value:.0f}" for name, value in roofs.items()))
    dequantized = 1e6 * measure_dequantize(device, rng, arguments.runs)
    print(f"dequantizing a layer to bfloat16, before any product: {dequantized:.0f} us")
    weights = pack_layers(device, rng)
    model = layers_model(device, weights)
    print(HEADER)
    cases = []
    for tokens in arguments.tokens:
        cases.append(measure_case(device, model, weights, tokens, arguments.runs, rng))
        print(format_case(cases[-1], roofs))
    if arguments.output:
        report = {
            "gpu": accelerator_architecture_name(),
            "max": version("max-core"),
            "python": platform.python_version(),
            "roofs": roofs,
            "dequantize_us": dequantized,
            "cases": cases,
        }
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
