"""Every op on the device against its NumPy twin, over fresh random bytes each run."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

if os.environ.get("MXFP4_GPU_TESTS") != "1":  # before MAX is imported, which takes seconds
    pytest.skip("set MXFP4_GPU_TESTS=1 on a Hopper host", allow_module_level=True)

from max.driver import Device
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef

from tests import tolerances
from tests.gpu.graphs import (
    EXPERTS,
    GRAPHS,
    HIDDEN,
    INNER,
    LIMIT,
    ROUTER_K,
    ROUTER_OUTPUTS,
    TOP_K,
    fetch,
    poison,
    send,
)
from tests.measure import relative_error
from tests.modules import load_together
from tests.reference import moe, mxfp4, sm90_tiles
from tests.reference.bfloat16 import round_to_bfloat16

pytestmark = pytest.mark.gpu

ROUNDING = 2**-8
"""Of what is rounded to bfloat16, which has eight bits, at most: half of what is between two numbers. The root mean
square of few outputs, or of some that are far larger than the others, may be nearly as much."""

SUMS = 1e-4
"""Of the largest output: everything before is exact or float32."""

STAGE_MAXIMUM, STAGE_RMS = 2**-7, 6e-3
"""A stage rounds to bfloat16, by `ROUNDING` at most, three times: what SwiGLU gives, what each expert gives, and the
sum. 5e-3 of the largest element and 2.4e-3 were seen on an H200."""


@pytest.fixture
def rng() -> np.random.Generator:
    """Other numbers at every run; a failure prints where they began."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def models(gpu: Device) -> dict[str, Model]:
    """Every graph, compiled for the device."""
    return load_together(InferenceSession(devices=[gpu]), GRAPHS, DeviceRef.from_device(gpu))


def random_experts(rng: np.random.Generator, experts: int, n: int, k: int) -> moe.ExpertWeights:
    return moe.ExpertWeights(
        rng.integers(0, 256, (experts, n, k // 32, 16), dtype=np.uint8),
        rng.integers(112, 128, (experts, n, k // 32), dtype=np.uint8),
        round_to_bfloat16(rng.standard_normal((experts, n))),
    )


def assert_right(got: Any, want: Any, rounded: Any = None) -> None:
    """Compares with what is wanted, which is rounded once, unless something else is on the way to it."""
    assert not np.isnan(got).any()
    bound = ROUNDING * np.abs(want if rounded is None else rounded) + SUMS * np.abs(want).max()
    excess = np.abs(got - want) - bound
    assert excess.max() <= 0, (np.argmax(excess), excess.max())


def test_dequantize_every_code_and_scale(gpu: Device, models: dict[str, Model]) -> None:
    codes = (np.arange(32) + np.arange(512)[:, None]) % 16
    blocks = mxfp4.pack(codes.astype(np.uint8)).reshape(1, 512, 1, 16)
    scales = np.repeat(np.arange(256), 2).astype(np.uint8).reshape(1, 512, 1)
    with np.errstate(over="ignore"):
        want = mxfp4.dequantize(blocks, scales).astype(np.float32)
    for got in models["dequantize"].execute(send(gpu, blocks), send(gpu, scales)):
        np.testing.assert_array_equal(fetch(got), want)


def test_swizzle(gpu: Device, models: dict[str, Model], rng: np.random.Generator) -> None:
    model = models["swizzle"]
    for n, k in ((128, 192), (96, 32), (5760, 64)):
        weights = random_experts(rng, 2, n, k)
        (got,) = model.execute(send(gpu, weights.blocks), send(gpu, weights.scales))
        want = sm90_tiles.swizzle(weights.blocks, weights.scales)
        np.testing.assert_array_equal(fetch(got), want)


@pytest.mark.parametrize("experts", [32, 128])
def test_routing(
    gpu: Device, models: dict[str, Model], experts: int, rng: np.random.Generator
) -> None:
    model = models[f"routing_{experts}"]
    for tokens in (1, 7, 64, 1000, 8192, 0):
        logits = rng.integers(-8, 9, (tokens, experts)).astype(np.float32) / 4  # many ties
        results = map(fetch, model.execute(send(gpu, logits)))
        ids, weights, order, places, offsets, counts, *at_once = results
        want_ids, want_weights = moe.route(logits, TOP_K)
        np.testing.assert_array_equal(ids, want_ids)
        if tokens:
            error = relative_error(weights, want_weights)
            assert error.maximum <= tolerances.ROUTING_WEIGHTS.maximum
        for got, want in zip((order, places, offsets), moe.group(want_ids, experts), strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(counts, np.zeros(experts))
        apart = weights, order, places, offsets, counts
        for got, want in zip(at_once, apart, strict=True):
            np.testing.assert_array_equal(got, want)


def test_combine(gpu: Device, models: dict[str, Model], rng: np.random.Generator) -> None:
    model = models["combine"]
    for tokens, hidden in ((1, 2880), (7, 33), (1000, 2880)):
        y = round_to_bfloat16(rng.standard_normal((4 * tokens, hidden)))
        places = rng.permutation(4 * tokens).astype(np.int32).reshape(tokens, 4)
        weights = rng.random((tokens, 4), dtype=np.float32)
        residual = round_to_bfloat16(rng.standard_normal((tokens, hidden)))
        (got,) = model.execute(
            send(gpu, y, DType.bfloat16),
            send(gpu, places),
            send(gpu, weights),
            send(gpu, residual, DType.bfloat16),
        )
        assert_right(fetch(got), residual + moe.combine(y, places, weights))


def test_combine_takes_what_is_not_aligned(
    gpu: Device, models: dict[str, Model], rng: np.random.Generator
) -> None:
    """Eight elements at a time would fault there."""
    y, residual = (round_to_bfloat16(rng.standard_normal(1 + 64 * n)) for n in (12, 3))
    places = rng.permutation(12).astype(np.int32).reshape(3, 4)
    weights = rng.random((3, 4), dtype=np.float32)
    y_behind, residual_behind = (
        send(gpu, whole, DType.bfloat16)[1:].view(DType.bfloat16, [len(whole) // 64, 64])
        for whole in (y, residual)
    )
    (got,) = models["combine"].execute(
        y_behind, send(gpu, places), send(gpu, weights), residual_behind
    )
    want = moe.combine(y[1:].reshape(12, 64), places, weights)
    assert_right(fetch(got), residual[1:].reshape(3, 64) + want)


def routed(rng: np.random.Generator, rows: int, experts: int, kind: str) -> np.ndarray:
    """Rows of each expert."""
    if kind == "single":
        counts = np.zeros(experts, int)
        counts[rng.integers(experts)] = rows
    elif kind == "skewed":
        counts = rng.multinomial(rows, rng.dirichlet(np.full(experts, 0.1)))
    else:
        counts = rng.multinomial(rows, np.full(experts, 1 / experts))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


@pytest.fixture(scope="module", params=["sm90", "strided"])
def kernel(request: pytest.FixtureRequest) -> str:
    return request.param


def on_device(gpu: Device, kernel: str, weights: moe.ExpertWeights) -> list[Any]:
    bias = send(gpu, weights.bias, DType.bfloat16)
    if kernel == "strided":
        return [send(gpu, weights.blocks), send(gpu, weights.scales), bias]
    return [send(gpu, sm90_tiles.swizzle(weights.blocks, weights.scales)), bias]


CASES = [
    (rows, experts, kind)
    for experts in (32, 128)
    for kind in ("uniform", "skewed", "single")
    for rows in (1, 4, 16, 60, 256, 1000, 4096, 0)
]


@pytest.mark.parametrize(("rows", "experts", "kind"), CASES)
def test_grouped_matmul(
    gpu: Device,
    models: dict[str, Model],
    kernel: str,
    rows: int,
    experts: int,
    kind: str,
    rng: np.random.Generator,
) -> None:
    n, k = (352, 288) if experts == 128 else (288, 416)
    weights, offsets = random_experts(rng, experts, n, k), routed(rng, rows, experts, kind)
    x = round_to_bfloat16(rng.standard_normal((rows, k)))
    inputs = [
        send(gpu, x, DType.bfloat16),
        *on_device(gpu, kernel, weights),
        send(gpu, offsets),
    ]
    if rows:
        poison(gpu, rows, n)
    got = fetch(models[kernel].execute(*inputs)[0])
    assert got.shape == (rows, n)
    if rows:
        assert_right(got, moe.grouped_matmul(x, weights, offsets))
        np.testing.assert_array_equal(got, fetch(models[kernel].execute(*inputs)[0]))


@pytest.mark.parametrize(("rows", "experts", "kind"), [case for case in CASES if case[0] % 4 == 0])
def test_grouped_matmul_swiglu(
    gpu: Device,
    models: dict[str, Model],
    kernel: str,
    rows: int,
    experts: int,
    kind: str,
    rng: np.random.Generator,
) -> None:
    n, k = 320, 288
    weights, offsets = random_experts(rng, experts, n, k), routed(rng, rows, experts, kind)
    x = round_to_bfloat16(rng.standard_normal((rows // 4, k)) / 8)
    order = rng.permutation(rows).astype(np.int32)
    inputs = [
        send(gpu, x, DType.bfloat16),
        *on_device(gpu, kernel, weights),
        send(gpu, offsets),
        send(gpu, order),
    ]
    if rows:
        poison(gpu, rows, n // 2)
    got = fetch(models[f"{kernel}_swiglu"].execute(*inputs)[0])
    assert got.shape == (rows, n // 2)
    if rows:
        assert_right(got, moe.grouped_matmul_swiglu(x, weights, offsets, order, LIMIT))
        np.testing.assert_array_equal(got, fetch(models[f"{kernel}_swiglu"].execute(*inputs)[0]))


@pytest.mark.parametrize("rows", [4, 64, 4096])
def test_sizes_of_20b(
    gpu: Device, models: dict[str, Model], kernel: str, rows: int, rng: np.random.Generator
) -> None:
    experts = 4  # each as large as 20b's, and fewer, for NumPy's sake
    weights = random_experts(rng, experts, 2880, 2880)
    offsets = routed(rng, rows, experts, "uniform")
    x = round_to_bfloat16(rng.standard_normal((rows, 2880)))
    inputs = [
        send(gpu, x, DType.bfloat16),
        *on_device(gpu, kernel, weights),
        send(gpu, offsets),
    ]
    poison(gpu, rows, 2880)
    got = fetch(models[kernel].execute(*inputs)[0])
    assert_right(got, moe.grouped_matmul(x, weights, offsets))


@pytest.mark.parametrize("tokens", [1, 8, 9, 32, 33, 300])
def test_router(
    gpu: Device, models: dict[str, Model], tokens: int, rng: np.random.Generator
) -> None:
    """Up to 32 tokens by our kernel, then by MAX's, which rounds before it adds the bias."""
    x, w = (rng.standard_normal((rows, ROUTER_K)) for rows in (tokens, ROUTER_OUTPUTS))
    x, w, bias = (round_to_bfloat16(part) for part in (x, w, rng.standard_normal(ROUTER_OUTPUTS)))
    inputs = [send(gpu, part, DType.bfloat16) for part in (x, w, bias)]
    got = fetch(models["router"].execute(*inputs)[0])
    products = x.astype(np.float64) @ w.T.astype(np.float64)
    assert_right(got, products + bias, products)
    if tokens <= 32:
        assert relative_error(got, products + bias).maximum <= tolerances.MATMUL.maximum
    for _ in range(3):
        np.testing.assert_array_equal(fetch(models["router"].execute(*inputs)[0]), got)


@pytest.mark.parametrize("tokens", [1, 5, 40, 300])
def test_moe_stage(
    gpu: Device, models: dict[str, Model], kernel: str, tokens: int, rng: np.random.Generator
) -> None:
    gate_up = random_experts(rng, EXPERTS, 2 * INNER, HIDDEN)
    down = random_experts(rng, EXPERTS, HIDDEN, INNER)
    x = round_to_bfloat16(rng.standard_normal((tokens, HIDDEN)) / 8)
    logits = rng.standard_normal((tokens, EXPERTS), dtype=np.float32)
    inputs = [
        send(gpu, x, DType.bfloat16),
        send(gpu, logits),
        *on_device(gpu, kernel, gate_up),
        *on_device(gpu, kernel, down),
    ]
    (got,) = models[f"{kernel}_stage"].execute(*inputs)
    ids, weights = moe.route(logits, TOP_K)
    want = x + moe.experts(x, ids, weights, gate_up, down, LIMIT, "bfloat16")
    # Of the largest element: that is what rounding goes by, and SwiGLU's products have a long tail.
    assert np.abs(fetch(got) - want).max() <= STAGE_MAXIMUM * np.abs(want).max()
    assert relative_error(fetch(got), want).rms <= STAGE_RMS
    if kernel == "sm90":
        for _ in range(20):  # blocks that wait for each other come in another order each time
            (at_once,) = models["sm90_mlp_stage"].execute(*inputs)
            np.testing.assert_array_equal(fetch(at_once), fetch(got))


def test_the_device_is_the_one_that_was_asked_for(gpu: Device) -> None:
    assert DeviceRef.from_device(gpu) == DeviceRef.GPU()
