"""Every op through a MAX graph against its NumPy twin; sizes stay symbolic, so a graph is compiled once.

Each section plans its graphs above its tests, and the first test that needs one has them all compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import Buffer
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType, TensorValue
from max.graph import ops as graph_ops

from gpt_oss_mxfp4 import ops, toolchain
from gpt_oss_mxfp4.ops.dense import QUANTIZED_DTYPES
from gpt_oss_mxfp4.options import Activations
from tests import tolerances
from tests.measure import RelativeError, relative_error
from tests.modules import Body, Inputs, load_together
from tests.reference import dense, moe, mxfp4, sm90_tiles
from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16

CPU = DeviceRef.CPU()
LIMIT = 7.0

Models = dict[str, Model]

PLANS: dict[str, tuple[Inputs, Body]] = {}
"""Inputs of every graph, and what it makes of them."""


def plan(name: str, inputs: Inputs, build: Body) -> None:
    assert name not in PLANS
    PLANS[name] = inputs, build


@pytest.fixture(scope="module")
def models(session: InferenceSession) -> Models:
    """Every graph that is planned, compiled together: alone each takes ten seconds or more, however small it is."""
    return load_together(session, PLANS, CPU)


def run(model: Model, *inputs: Any) -> list[Any]:
    buffers = [
        i if isinstance(i, Buffer) else Buffer.from_numpy(np.ascontiguousarray(i)) for i in inputs
    ]
    return [np.array(result.to_numpy()) for result in model.execute(*buffers)]


def bfloat16(x: Any) -> Buffer:
    """A BF16 tensor of the nearest values."""
    return Buffer.from_numpy(encode_bfloat16(x)).view(DType.bfloat16)


def assert_close(got: Any, want: Any, bound: RelativeError) -> None:
    error = relative_error(got, want)
    # Not `error > bound`: that is false for NaN, which is what unwritten outputs hold.
    assert error.maximum <= bound.maximum, error
    assert error.rms <= bound.rms, error


# --- dequantize ---------------------------------------------------------------------------------------------


plan(
    "dequantize",
    [(DType.uint8, ["e", "n", "g", 16]), (DType.uint8, ["e", "n", "g"])],
    lambda b, s: (ops.dequantize(b, s), ops.dequantize(b, s, DType.bfloat16)),
)


def every_code_and_scale() -> tuple[np.ndarray, np.ndarray]:
    """256 groups, one per scale byte, each holding all 16 codes in both nibbles."""
    codes = np.arange(16, dtype=np.uint8)
    blocks = np.broadcast_to(codes | codes[::-1] << 4, (1, 1, 256, 16))
    return np.ascontiguousarray(blocks), np.arange(256, dtype=np.uint8).reshape(1, 1, 256)


def test_dequantize_every_code_and_scale_bit_for_bit(models: Models) -> None:
    blocks, scales = every_code_and_scale()
    wide, narrow = models["dequantize"].execute(
        Buffer.from_numpy(blocks), Buffer.from_numpy(scales)
    )
    with np.errstate(over="ignore"):
        want = mxfp4.dequantize(blocks, scales).astype(np.float32)
    is_nan = np.isnan(want)
    assert is_nan.sum() == 32, "one scale byte, 255, is NaN"
    wide_values, narrow_bits = wide.to_numpy(), narrow.view(DType.uint16).to_numpy()
    for got, bits, want_bits in (
        (wide_values, wide_values.view(np.uint32), want.view(np.uint32)),
        (decode_bfloat16(narrow_bits), narrow_bits, encode_bfloat16(want)),
    ):
        np.testing.assert_array_equal(bits[~is_nan], want_bits[~is_nan])
        assert np.isnan(got[is_nan]).all()


def test_dequantize_shapes(models: Models, rng: np.random.Generator) -> None:
    """Also scales near 0 on every thread of the pool: subnormals survive MAX's flush-to-zero."""
    for shape in [(2, 3, 5), (1, 1, 1), (4, 64, 90), (0, 3, 2)]:
        blocks = rng.integers(0, 256, (*shape, 16), dtype=np.uint8)
        scales = rng.integers(0, 250, shape, dtype=np.uint8)
        wide, _ = models["dequantize"].execute(Buffer.from_numpy(blocks), Buffer.from_numpy(scales))
        want = mxfp4.dequantize(blocks, scales).astype(np.float32)
        np.testing.assert_array_equal(wide.to_numpy(), want)


# --- quantize -----------------------------------------------------------------------------------------------


E2M1_MIDPOINTS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])


def random_bits(rng: np.random.Generator, below: int, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 of either sign whose bits without it are below a bound."""
    signs = rng.integers(0, 2, shape, dtype=np.uint32) << 31
    return (rng.integers(0, below, shape, dtype=np.uint32) | signs).view(np.float32)


def ties_under_every_scale(rng: np.random.Generator) -> np.ndarray:
    """Each midpoint and its two neighbours, in groups whose largest element is 4 or 5 times their scale."""
    exponents = np.arange(-127, 126)[:, None]
    midpoints = np.ldexp(E2M1_MIDPOINTS, exponents).astype(np.float32).view(np.uint32)
    four = np.ldexp(4.0, exponents).astype(np.float32).view(np.uint32)
    below_5 = midpoints[:, :6]
    beside = [below_5 - 1, below_5, below_5 + 1]
    up_to_4 = np.concatenate([*beside, np.repeat(four, 14, axis=1)], axis=1)
    up_to_5 = np.concatenate([midpoints, up_to_4[:, 7:]], axis=1)
    bits = rng.permuted(np.concatenate([up_to_4, up_to_5]), axis=1)
    signs = rng.integers(0, 2, bits.shape, dtype=np.uint32) << 31
    return (bits | signs).view(np.float32)[None]


def powers_of_two_and_their_neighbours(rng: np.random.Generator) -> np.ndarray:
    """Groups whose largest element is 2^e, or the float just below or above it."""
    power = np.arange(1, 255, dtype=np.uint32)[:, None] << 23
    largest = np.concatenate([power - 1, power, power + 1])
    rest = (largest * rng.random((len(largest), 31))).astype(np.uint32)
    return rng.permuted(np.concatenate([largest, rest], axis=1), axis=1).view(np.float32)[:, None]


def not_finite(rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((4, 3, 64), dtype=np.float32)
    x[0, 0, 5], x[1, 1, 40], x[2, 2, 63], x[3, 0, :32] = np.nan, np.inf, -np.inf, -np.nan
    return x


QUANTIZE_INPUTS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "no_rows": lambda rng: np.zeros((0, 3, 64), np.float32),
    "no_columns": lambda rng: np.zeros((2, 3, 0), np.float32),
    "one_group": lambda rng: rng.standard_normal((1, 1, 32), dtype=np.float32),
    "weights": lambda rng: rng.standard_normal((4, 5, 2880), dtype=np.float32),
    "zeros": lambda rng: np.copysign(0, rng.standard_normal((2, 3, 96))).astype(np.float32),
    "ties": ties_under_every_scale,
    "powers_of_two": powers_of_two_and_their_neighbours,
    "not_finite": not_finite,
    "largest": lambda rng: -np.full((1, 2, 32), np.finfo(np.float32).max),
    # 23040 groups: several threads, those of MAX's pool among them, which flush subnormals.
    "subnormals": lambda rng: random_bits(rng, 1 << 25, (4, 64, 2880)),
    "any_bits": lambda rng: random_bits(rng, 1 << 31, (4, 64, 2880)),
}


plan(
    "quantize",
    [(DType.float32, ["e", "n", "k"]), (DType.bfloat16, ["e", "n", "k"])],
    lambda wide, narrow: (*ops.quantize(wide), *ops.quantize(narrow)),
)


@pytest.mark.parametrize("name", QUANTIZE_INPUTS)
def test_quantize(models: Models, name: str, rng: np.random.Generator) -> None:
    x = QUANTIZE_INPUTS[name](rng)
    with np.errstate(invalid="ignore", over="ignore"):  # NaNs that signal; bfloat16's infinity
        want = [*mxfp4.quantize(x), *mxfp4.quantize(decode_bfloat16(encode_bfloat16(x)))]
        got = run(models["quantize"], x, bfloat16(x))
    for got_bytes, want_bytes in zip(got, want, strict=True):
        np.testing.assert_array_equal(got_bytes, want_bytes)


def test_quantize_gives_groups_that_are_not_finite_scale_255_and_codes_0(
    models: Models, rng: np.random.Generator
) -> None:
    x = not_finite(rng)
    blocks, scales, *_ = run(models["quantize"], x, bfloat16(x))
    bad = ~np.isfinite(x).reshape(4, 3, 2, 32).all(axis=-1)
    assert bad.sum() == 4
    np.testing.assert_array_equal(scales == 255, bad)
    assert not blocks[bad].any()


def test_quantize_gives_groups_of_zeros_scale_0_and_keeps_signs(models: Models) -> None:
    x = np.array([0.0, -0.0] * 16, np.float32).reshape(1, 1, 32)
    blocks, scales, *_ = run(models["quantize"], x, bfloat16(x))
    assert scales.tolist() == [[[0]]]
    assert blocks.tolist() == [[[[0x80] * 16]]]


plan(
    "round_trip",
    [(DType.uint8, ["n", "g", 16]), (DType.uint8, ["n", "g"])],
    lambda b, s: (
        *ops.quantize(ops.dequantize(b, s)),
        *ops.quantize(ops.dequantize(b, s, DType.bfloat16)),
    ),
)


def test_quantize_inverts_dequantize(models: Models, rng: np.random.Generator) -> None:
    """Where a group's largest element is 4 or 6 its scale is the one that quantize picks."""
    # Beyond scale 252 that element leaves float32.
    scales = np.broadcast_to(np.arange(253, dtype=np.uint8), (66, 253))
    codes = rng.integers(0, 16, (66, 253, 32), dtype=np.uint8)
    codes[..., 0] = rng.choice(np.array([6, 7, 14, 15], np.uint8), (66, 253))
    blocks = mxfp4.pack(rng.permuted(codes, axis=-1))
    got = run(models["round_trip"], blocks, scales)
    for got_bytes, want_bytes in zip(got, [blocks, scales] * 2, strict=True):
        np.testing.assert_array_equal(got_bytes, want_bytes)


def test_quantize_refuses_a_partial_group_at_run_time(models: Models) -> None:
    x = np.zeros((2, 3, 48), np.float32)
    with pytest.raises(
        ValueError, match=r"mxfp4.quantize: x.shape\[-1\] must be a multiple of 32, got 48"
    ):
        run(models["quantize"], x, bfloat16(x))


def test_quantize_knows_its_shapes_while_the_graph_is_built() -> None:
    shapes: list[list[Any]] = [[], [0], [5], [2, 3], ["e", 3], ["a", 1, 2, "b"]]
    types = [TensorType(DType.bfloat16, [*outer, 96], CPU) for outer in shapes]
    with Graph("shapes", input_types=types, custom_extensions=[ops.custom_ops()]) as graph:
        for outer, x in zip(shapes, graph.inputs, strict=True):
            blocks, scales = ops.quantize(x.tensor)
            assert blocks.type == TensorType(DType.uint8, [*outer, 3, 16], CPU)
            assert scales.type == TensorType(DType.uint8, [*outer, 3], CPU)
        graph.output()


# --- swizzle ------------------------------------------------------------------------------------------------


plan(
    "swizzle",
    [(DType.uint8, ["e", "n", "g", 16]), (DType.uint8, ["e", "n", "g"])],
    ops.swizzle,
)


@pytest.mark.parametrize(
    ("experts", "n", "k"), [(2, 128, 192), (1, 64, 64), (3, 97, 32), (0, 64, 64)]
)
def test_swizzle(models: Models, experts: int, n: int, k: int, rng: np.random.Generator) -> None:
    """Against the packing in NumPy, which the emulated kernels read; rows and k that fill no tile too."""
    blocks = rng.integers(0, 256, (experts, n, k // 32, 16), dtype=np.uint8)
    scales = rng.integers(0, 129, (experts, n, k // 32), dtype=np.uint8)
    (got,) = run(models["swizzle"], blocks, scales)
    np.testing.assert_array_equal(got, sm90_tiles.swizzle(blocks, scales))


def test_swizzle_makes_scales_infinite_that_do_not_fit(models: Models) -> None:
    blocks = np.zeros((1, 64, 2, 16), np.uint8)
    scales = np.resize(np.arange(128, 256), (1, 64, 2)).astype(np.uint8)
    (tiles,) = run(models["swizzle"], blocks, scales)
    words = tiles[0, 0, 0, 2048:].copy().view(np.uint32)
    stored = (words >> 7 | words << 25).view(np.uint8)
    assert sorted(set(stored.tolist())) == [254, 255]  # 2^127, and infinity
    assert (stored == 254).sum() == 1


# --- route, group, combine ----------------------------------------------------------------------------------


ROUTINGS = [(32, 4), (128, 4), (3, 1), (8, 8)]
"""Experts and experts per token: 20b, 120b, one, all."""


def route_and_group_each(*logits: TensorValue) -> tuple[TensorValue, ...]:
    """One logits tensor for each of ROUTINGS."""
    results: list[TensorValue] = []
    for values, (experts, top_k) in zip(logits, ROUTINGS, strict=True):
        ids, weights = ops.route(values, top_k)
        results += [ids, weights, *ops.group(ids, experts), *ops.route_and_group(values, top_k)]
    return tuple(results)


plan(
    "routing",
    [(DType.float32, [f"t{experts}", experts]) for experts, _ in ROUTINGS],
    route_and_group_each,
)


@pytest.mark.parametrize("tokens", [0, 1, 7, 129])
def test_route_and_group(models: Models, tokens: int, rng: np.random.Generator) -> None:
    for make_logits in (
        lambda shape: rng.standard_normal(shape, dtype=np.float32),
        # Few distinct values: ties everywhere, which go to the lower id.
        lambda shape: rng.integers(-2, 3, shape).astype(np.float32),
        lambda shape: np.zeros(shape, np.float32),
        lambda shape: np.full(shape, -1e30, np.float32),
    ):
        logits = [make_logits((tokens, experts)) for experts, _ in ROUTINGS]
        results = run(models["routing"], *logits)
        for i, (experts, top_k) in enumerate(ROUTINGS):
            ids, weights, order, places, offsets, counts, *at_once = results[11 * i : 11 * i + 11]
            want_ids, want_weights = moe.route(logits[i], top_k)
            np.testing.assert_array_equal(ids, want_ids)
            assert_close(weights, want_weights, tolerances.ROUTING_WEIGHTS)
            want_order, want_places, want_offsets = moe.group(want_ids, experts)
            np.testing.assert_array_equal(order, want_order)
            np.testing.assert_array_equal(places, want_places)
            np.testing.assert_array_equal(offsets, want_offsets)
            np.testing.assert_array_equal(counts, np.zeros(experts))
            for got, want in zip(at_once, (weights, order, places, offsets, counts), strict=True):
                np.testing.assert_array_equal(got, want)


def test_route_survives_nan_and_infinity(models: Models) -> None:
    logits = [np.zeros((3, experts), np.float32) for experts, _ in ROUTINGS]
    for values in logits:
        values[0] = np.nan
        values[1, ::2] = np.nan
        values[2, 0] = np.inf
    results = run(models["routing"], *logits)
    for i, (experts, top_k) in enumerate(ROUTINGS):
        ids = results[11 * i]
        assert ((ids >= 0) & (ids < experts)).all()
        assert all(len(set(row)) == top_k for row in ids.tolist())


plan("route_any", [(DType.float32, ["t", "e"])], lambda logits: ops.route(logits, 4))
plan(
    "route_and_group_any",
    [(DType.float32, ["t", "e"])],
    lambda logits: ops.route_and_group(logits, 4),
)


def test_route_refuses_fewer_experts_than_a_token_takes(models: Models) -> None:
    logits = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(run(models["route_any"], logits)[0], [[0, 1, 2, 3]] * 2)
    with pytest.raises(ValueError, match=r"moe\.route: top_k must be between 1 and 3, got 4"):
        run(models["route_any"], logits[:, :3])
    with pytest.raises(
        ValueError, match=r"moe\.route_and_group: top_k must be between 1 and 3, got 4"
    ):
        run(models["route_and_group_any"], logits[:, :3])


plan("group", [(DType.int32, ["t", 2])], lambda ids: ops.group(ids, 4))


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_group_refuses_ids_out_of_range(models: Models, bad: int) -> None:
    with pytest.raises(ValueError, match=rf"moe.group: expert_ids\[3\] must be in 0..3, got {bad}"):
        run(models["group"], np.array([[0, 1], [2, bad]], np.int32))


COMBINED: Inputs = [
    (DType.float32, ["p", "h"]),
    (DType.int32, ["t", "k"]),
    (DType.float32, ["t", "k"]),
    (DType.float32, ["residuals", "width"]),
]
plan("combine", COMBINED, ops.combine)


@pytest.mark.parametrize(
    ("tokens", "top_k", "hidden"), [(0, 4, 8), (1, 4, 2880), (7, 4, 33), (129, 2, 64)]
)
def test_combine(
    models: Models, tokens: int, top_k: int, hidden: int, rng: np.random.Generator
) -> None:
    y = rng.standard_normal((tokens * top_k, hidden), dtype=np.float32)
    places = rng.permutation(tokens * top_k).astype(np.int32).reshape(tokens, top_k)
    weights = rng.random((tokens, top_k), dtype=np.float32)
    residual = rng.standard_normal((tokens, hidden), dtype=np.float32)
    (got,) = run(models["combine"], y, places, weights, residual)
    assert_close(got, residual + moe.combine(y, places, weights), tolerances.MATMUL)


def test_combine_adds_the_residual_last(models: Models) -> None:
    """So the sum over experts is the same whatever it is added to."""
    y = np.array([[1.0], [2.0**-24]], np.float32)
    places, weights = np.array([[0, 1]], np.int32), np.ones((1, 2), np.float32)
    (got,) = run(models["combine"], y, places, weights, np.array([[-1.0]], np.float32))
    assert got.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 8), r"residual.shape\[0\] = T must be 2"), ((2, 7), r"residual.shape\[1\]")],
)
def test_combine_refuses_a_residual_of_another_shape(
    models: Models, shape: tuple[int, int], message: str
) -> None:
    y, weights = np.zeros((4, 8), np.float32), np.ones((2, 2), np.float32)
    places = np.arange(4, dtype=np.int32).reshape(2, 2)
    with pytest.raises(ValueError, match=message):
        run(models["combine"], y, places, weights, np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [-1, 4])
def test_combine_refuses_a_place_that_is_none(models: Models, bad: int) -> None:
    y, weights = np.zeros((4, 8), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(
        ValueError, match=rf"moe.combine: row_places must lie in 0\.\.3, got {bad} at 2"
    ):
        run(
            models["combine"],
            y,
            np.array([[0, 1], [bad, 3]], np.int32),
            weights,
            np.zeros((2, 8), np.float32),
        )


# --- grouped matmuls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Rows of each expert, outputs N and reduced size K."""

    counts: tuple[int, ...]
    n: int
    k: int

    def __str__(self) -> str:
        rows = ",".join(map(str, self.counts))
        return f"rows[{rows}]-n{self.n}-k{self.k}"


CASES = [
    Case((0, 0, 0, 0), 64, 128),  # P = 0
    Case((1,), 2, 32),  # the smallest weight there is
    Case((0, 1, 0, 0), 64, 96),
    Case((4, 0, 3, 0), 66, 160),  # an empty expert, tails in N and K
    Case((129, 0, 0, 0), 34, 224),  # all rows on one expert
    Case(
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33), 40, 64
    ),  # both sides of every switch of kernel
    Case((95, 96, 97, 100, 101), 32, 128),  # around a full tile
    Case((250,), 6, 2880),  # several tiles of one expert
    Case((1, 1, 1, 1), 5760, 2880),  # 20b and 120b, decode
    Case((2, 0, 130), 2880, 2880),  # 20b and 120b, prefill
]


def expert_weights(
    rng: np.random.Generator, experts: int, n: int, k: int
) -> tuple[moe.ExpertWeights, Buffer]:
    bias = rng.standard_normal((experts, n), dtype=np.float32)
    weights = moe.ExpertWeights(
        blocks=rng.integers(0, 256, (experts, n, k // 32, 16), dtype=np.uint8),
        scales=rng.integers(118, 126, (experts, n, k // 32), dtype=np.uint8),
        bias=decode_bfloat16(encode_bfloat16(bias)),
    )
    return weights, bfloat16(bias)


GROUPED_INPUTS: Inputs = [
    (DType.float32, ["x", "k"]),
    (DType.uint8, ["e", "n", "g", 16]),
    (DType.uint8, ["e", "n", "g"]),
    (DType.bfloat16, ["e", "n"]),
    (DType.int32, ["o"]),
]

ACTIVATIONS: list[Activations] = ["bfloat16", "float32", "int8"]

for precision in ACTIVATIONS:
    plan(
        f"grouped_matmul_{precision}",
        GROUPED_INPUTS,
        partial(ops.grouped_matmul, activations=precision),
    )
    plan(
        f"grouped_matmul_swiglu_{precision}",
        [*GROUPED_INPUTS, (DType.int32, ["p"])],
        partial(ops.grouped_matmul_swiglu, limit=LIMIT, activations=precision),
    )


@pytest.fixture(scope="module", params=ACTIVATIONS)
def activations(request: pytest.FixtureRequest) -> Activations:
    value: Activations = request.param
    return value


@pytest.fixture(scope="module")
def grouped_model(models: Models, activations: Activations) -> Model:
    return models[f"grouped_matmul_{activations}"]


@pytest.fixture(scope="module")
def swiglu_model(models: Models, activations: Activations) -> Model:
    return models[f"grouped_matmul_swiglu_{activations}"]


def offsets_of(counts: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grouped_matmul(
    grouped_model: Model, activations: Activations, case: Case, rng: np.random.Generator
) -> None:
    weights, bias = expert_weights(rng, len(case.counts), case.n, case.k)
    offsets = offsets_of(case.counts)
    x = rng.standard_normal((offsets[-1], case.k), dtype=np.float32)
    (got,) = run(grouped_model, x, weights.blocks, weights.scales, bias, offsets)
    want = moe.grouped_matmul(x, weights, offsets, activations)
    assert_close(got, want, tolerances.MATMUL)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grouped_matmul_swiglu(
    swiglu_model: Model, activations: Activations, case: Case, rng: np.random.Generator
) -> None:
    weights, bias = expert_weights(rng, len(case.counts), case.n, case.k)
    offsets = offsets_of(case.counts)
    rows = int(offsets[-1])
    top_k = next((k for k in (4, 2) if rows % k == 0), 1)
    order = rng.permutation(rows).astype(np.int32)
    x = rng.standard_normal((rows // top_k, case.k), dtype=np.float32)
    (got,) = run(swiglu_model, x, weights.blocks, weights.scales, bias, offsets, order)
    want = moe.grouped_matmul_swiglu(x, weights, offsets, order, LIMIT, activations)
    assert_close(got, want, tolerances.MATMUL_SWIGLU)


@pytest.mark.parametrize("rows", [1, 40])
def test_grouped_matmul_takes_every_scale_byte(
    grouped_model: Model, rows: int, rng: np.random.Generator
) -> None:
    """One scale byte to an output: each is exact (a power of two times a sum), 255 alone is NaN by itself.

    From 240 on partial sums may overflow, and two of them cancel to NaN: as in any float32 sum there is no more to ask
    than that nothing finite comes out wrong.
    """
    blocks = np.broadcast_to(rng.integers(0, 256, 16, dtype=np.uint8), (1, 256, 1, 16)).copy()
    scales = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    x = rng.integers(-127, 128, (rows, 32)).astype(np.float32)
    x[:, 7] = 127  # so that rounding to int8 changes nothing
    bias = bfloat16(np.zeros((1, 256)))
    (got,) = run(grouped_model, x, blocks, scales, bias, np.array([0, rows], np.int32))
    sums = mxfp4.dequantize(blocks, np.full_like(scales, 127))[0] @ x.T.astype(np.float64)
    with np.errstate(over="ignore"):
        want = np.ldexp(sums, np.arange(256)[:, None] - 127).T.astype(np.float32)
    np.testing.assert_array_equal(got[:, :240], want[:, :240])
    large = got[:, 240:255]
    assert ((large == want[:, 240:255]) | ~np.isfinite(large)).all()
    assert np.isnan(got[:, 255]).all()


def test_rows_do_not_depend_on_their_batch_within_a_kernel(
    grouped_model: Model, rng: np.random.Generator
) -> None:
    """A row's result has the same bits alone and beside others, as long as the same kernel multiplies it."""
    weights, bias = expert_weights(rng, 1, 64, 2880)
    x = rng.standard_normal((130, 2880), dtype=np.float32)

    def multiply(rows: slice) -> np.ndarray:
        part = x[rows]
        offsets = np.array([0, len(part)], np.int32)
        result: np.ndarray = run(
            grouped_model, part, weights.blocks, weights.scales, bias, offsets
        )[0]
        return result

    np.testing.assert_array_equal(multiply(slice(0, 1)), multiply(slice(0, 3))[:1])
    np.testing.assert_array_equal(multiply(slice(0, 4)), multiply(slice(0, 7))[:4])
    np.testing.assert_array_equal(multiply(slice(0, 48)), multiply(slice(0, 130))[:48])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 1, 4], r"expert_offsets must ascend, got 2 then 1 at expert 1"),
        ([1, 2, 3, 4], r"expert_offsets\[0\] must be 0, got 1"),
        ([0, 1, 2, 5], r"expert_offsets\[experts\] = routed rows must be 4, got 5"),
        ([0, -3, 2, 4], r"expert_offsets must ascend, got 0 then -3 at expert 0"),
        ([0, 4], r"expert_offsets.shape\[0\] = experts \+ 1 must be 4, got 2"),
    ],
)
def test_grouped_matmul_refuses_bad_offsets(
    grouped_model: Model, rng: np.random.Generator, offsets: list[int], message: str
) -> None:
    weights, bias = expert_weights(rng, 3, 4, 32)
    x = np.zeros((4, 32), np.float32)
    with pytest.raises(ValueError, match="mxfp4.grouped_matmul: " + message):
        run(grouped_model, x, weights.blocks, weights.scales, bias, np.array(offsets, np.int32))


def test_grouped_matmul_refuses_sizes_that_disagree(
    grouped_model: Model, rng: np.random.Generator
) -> None:
    weights, bias = expert_weights(rng, 2, 4, 64)
    x, offsets = np.zeros((3, 96), np.float32), np.array([0, 1, 3], np.int32)
    with pytest.raises(
        ValueError, match=r"x.shape\[1\] = 32 \* blocks.shape\[2\] must be 64, got 96"
    ):
        run(grouped_model, x, weights.blocks, weights.scales, bias, offsets)


@pytest.mark.parametrize("order", [[0, 1, 2, 4], [-1, 1, 2, 3]])
def test_swiglu_refuses_a_row_order_out_of_range(
    swiglu_model: Model, rng: np.random.Generator, order: list[int]
) -> None:
    weights, bias = expert_weights(rng, 1, 4, 32)
    x, offsets = np.zeros((2, 32), np.float32), np.array([0, 4], np.int32)
    with pytest.raises(ValueError, match=r"row_order must lie in 0\.\.3"):
        run(
            swiglu_model,
            x,
            weights.blocks,
            weights.scales,
            bias,
            offsets,
            np.array(order, np.int32),
        )


@pytest.mark.parametrize("tokens", [0, 3])
def test_swiglu_refuses_a_row_order_of_no_whole_number_per_token(
    swiglu_model: Model, rng: np.random.Generator, tokens: int
) -> None:
    weights, bias = expert_weights(rng, 1, 4, 32)
    message = rf"row_order.shape\[0\] must be a multiple of the tokens = {tokens}, got 4"
    with pytest.raises(ValueError, match=message):
        run(
            swiglu_model,
            np.zeros((tokens, 32), np.float32),
            weights.blocks,
            weights.scales,
            bias,
            np.array([0, 4], np.int32),
            np.arange(4, dtype=np.int32),
        )


# --- dense --------------------------------------------------------------------------------------------------


plan(
    "dense",
    [(DType.float32, ["t", "k"]), (DType.bfloat16, ["n", "k"]), (DType.bfloat16, ["n"])],
    lambda x, w, b: (
        ops.dense(x, w),
        ops.dense(x, w, b),
        ops.dense(x, w, activations="bfloat16"),
    ),
)


@pytest.mark.parametrize("tokens", [0, 1, 4, 8, 9, 129])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 33), (32, 2880), (64, 100), (4096, 2880)])
def test_dense(models: Models, tokens: int, n: int, k: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((tokens, k), dtype=np.float32)
    w = rng.standard_normal((n, k), dtype=np.float32)
    bias = rng.standard_normal(n, dtype=np.float32)
    without_bias, with_bias, rounded = run(models["dense"], x, bfloat16(w), bfloat16(bias))
    w, bias = decode_bfloat16(encode_bfloat16(w)), decode_bfloat16(encode_bfloat16(bias))
    want = dense.linear(x, w)
    assert_close(without_bias, want, tolerances.MATMUL)
    assert_close(with_bias, want + bias, tolerances.MATMUL)
    assert_close(rounded, dense.linear(x, w, None, "bfloat16"), tolerances.MATMUL)


# --- dense, 8 bits ------------------------------------------------------------------------------------------


def weights_to_round(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Groups of many sizes, down to where scales are subnormal; the first three are zeros, an infinity and a NaN."""
    groups = rng.standard_normal((n * k // 32, 32)) * np.exp2(
        rng.integers(-140, 60, (n * k // 32, 1))
    )
    groups[:3] = 1
    groups[0], groups[1, 5], groups[2, 31] = 0, np.inf, np.nan
    return decode_bfloat16(encode_bfloat16(groups.reshape(n, k)))


plan(
    "quantize_dense",
    [(DType.bfloat16, ["n", "k"])],
    lambda w: (*ops.quantize_dense(w, "int8"), *ops.quantize_dense(w, "mxfp8")),
)


@pytest.mark.parametrize(("n", "k"), [(3, 32), (7, 96), (300, 2880)])
def test_quantize_dense_bit_for_bit(
    models: Models, n: int, k: int, rng: np.random.Generator
) -> None:
    w = weights_to_round(rng, n, k)
    int8, int8_scales, e4m3, e8m0 = models["quantize_dense"].execute(bfloat16(w))
    want_int8, want_int8_scales = dense.quantize_int8(w)
    want_e4m3, want_e8m0 = dense.quantize_mxfp8(w)
    np.testing.assert_array_equal(int8_scales.view(DType.uint16).to_numpy(), want_int8_scales)
    np.testing.assert_array_equal(int8.to_numpy(), want_int8)
    np.testing.assert_array_equal(e8m0.to_numpy(), want_e8m0)
    np.testing.assert_array_equal(e4m3.to_numpy(), want_e4m3)


for weights_form, (value_dtype, scale_dtype) in QUANTIZED_DTYPES.items():
    plan(
        f"quantized_dense_{weights_form}",
        [
            (DType.float32, ["t", "k"]),
            (value_dtype, ["n", "k"]),
            (scale_dtype, ["n", "g"]),
            (DType.bfloat16, ["n"]),
        ],
        lambda x, v, s, b: (
            ops.quantized_dense(x, v, s),
            ops.quantized_dense(x, v, s, b, "bfloat16"),
            ops.quantized_dense(x, v, s, None, "int8"),
        ),
    )


@pytest.fixture(scope="module", params=QUANTIZED_DTYPES)
def form(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(scope="module")
def quantized_dense_model(models: Models, form: str) -> Model:
    return models[f"quantized_dense_{form}"]


@pytest.mark.parametrize("tokens", [0, 1, 4, 8, 29, 129])
@pytest.mark.parametrize(("n", "k"), [(1, 32), (5, 96), (66, 2880)])
def test_quantized_dense(
    quantized_dense_model: Model, form: str, tokens: int, n: int, k: int, rng: np.random.Generator
) -> None:
    """MXFP8 weights are multiplied by bfloat16 where int8 is asked for."""
    x = rng.standard_normal((tokens, k), dtype=np.float32)
    bias = rng.standard_normal(n, dtype=np.float32)
    w = rng.standard_normal((n, k)) * np.exp2(rng.integers(-6, 6, (n, 1)))
    values: Any
    scales: Any
    if form == "int8":
        values, bits = dense.quantize_int8(w)
        scales = Buffer.from_numpy(bits).view(DType.bfloat16)
        rounded = dense.dequantize_int8(values, bits)
    else:
        values, scales = dense.quantize_mxfp8(w)
        rounded = dense.dequantize_mxfp8(values, scales)
    exact, rounds, int8 = run(quantized_dense_model, x, values, scales, bfloat16(bias))
    bias = decode_bfloat16(encode_bfloat16(bias))
    least: Activations = "int8" if form == "int8" else "bfloat16"
    assert_close(exact, dense.linear(x, rounded), tolerances.MATMUL)
    assert_close(rounds, dense.linear(x, rounded, bias, "bfloat16"), tolerances.MATMUL)
    assert_close(int8, dense.linear(x, rounded, None, least), tolerances.MATMUL)


plan(
    "quantized_dense_codes",
    [(DType.float32, ["t", "k"]), (DType.uint8, ["n", "k"]), (DType.uint8, ["n", "g"])],
    lambda x, v, s: (
        ops.quantized_dense(x, v, s),
        ops.quantized_dense(x, v, s, None, "bfloat16"),
    ),
)


def test_every_e4m3_code_multiplies_exactly(models: Models) -> None:
    """By one, at scales where products are far from subnormal; 0x7F and 0xFF, NaN, are none that rounding makes."""
    codes = np.delete(np.arange(256, dtype=np.uint8), [0x7F, 0xFF])
    values = np.zeros((codes.size, 32), np.uint8)
    values[:, 11] = codes
    model = models["quantized_dense_codes"]
    for tokens in (1, 9, 40):
        for scale in (60, 127, 200):
            scales = np.full((codes.size, 1), scale, np.uint8)
            want = np.tile(dense.dequantize_mxfp8(values, scales).sum(axis=1), (tokens, 1))
            for got in run(model, np.ones((tokens, 32), np.float32), values, scales):
                np.testing.assert_array_equal(got, want.astype(np.float32))


# --- results of another size, which a graph that names an op may ask for ------------------------------------


def ask(
    op: str, dtypes: list[DType], **parameters: bool | int | str | DType
) -> Callable[..., tuple[TensorValue, ...]]:
    """Gives what adds an op by its name: the last inputs are there for the sizes of its results."""

    def body(*inputs: TensorValue) -> tuple[TensorValue, ...]:
        read, like = inputs[: -len(dtypes)], inputs[-len(dtypes) :]
        types = [TensorType(dtype, one.shape, CPU) for dtype, one in zip(dtypes, like, strict=True)]
        results = graph_ops.custom(op, CPU, list(read), types, parameters=parameters)
        return tuple(result.tensor for result in results)

    return body


LIKE: tuple[DType, list[str | int]] = (DType.uint8, ["rows", "columns"])
X: tuple[DType, list[str | int]] = (DType.float32, ["t", 32])
ASKED: dict[str, tuple[Inputs, Body, list[tuple[int, ...]], str]] = {
    "dense.matmul": (
        [X, (DType.bfloat16, ["n", 32]), LIKE],
        ask("dense.matmul", [DType.float32], activations=DType.float32),
        [(3, 32), (5, 32), (3, 5)],
        "y.shape[0] = x.shape[0] must be 3, got 2",
    ),
    "dense.matmul_quantized": (
        [X, (DType.int8, ["n", 32]), (DType.bfloat16, ["n", 1]), LIKE],
        ask("dense.matmul_quantized", [DType.float32], activations=DType.float32),
        [(3, 32), (5, 32), (5, 1), (3, 5)],
        "y.shape[0] = x.shape[0] must be 3, got 2",
    ),
    "mxfp4.dequantize": (
        [(DType.uint8, ["t", 1, 16]), (DType.uint8, ["t", 1]), LIKE],
        ask("mxfp4.dequantize", [DType.float32]),
        [(3, 1, 16), (3, 1), (3, 32)],
        "y.shape[0] = blocks.shape[0] must be 3, got 2",
    ),
    "moe.route": (
        [X, (DType.uint8, ["t", "k"]), LIKE],
        ask("moe.route", [DType.int32, DType.float32]),
        [(3, 32), (3, 4), (3, 4)],
        "weights.shape = ids.shape must be 3, got 2",
    ),
    "moe.combine": (
        [(DType.float32, ["p", 32]), (DType.int32, ["t", 1]), (DType.float32, ["t", 1]), X, LIKE],
        ask("moe.combine", [DType.float32]),
        [(3, 32), (3, 1), (3, 1), (3, 32), (3, 32)],
        "result.shape[0] = T must be 3, got 2",
    ),
}
"""Inputs, the op, sizes that are right, and what is said of a result, the last, with a row less."""

for name, (inputs, body, *_) in ASKED.items():
    plan(f"asked {name}", inputs, body)


@pytest.mark.parametrize("name", ASKED)
def test_a_result_of_another_size_is_refused(models: Models, name: str) -> None:
    """More would be written than there is room for."""
    inputs, _, sizes, message = ASKED[name]
    model = models[f"asked {name}"]

    def arrays(sizes: list[tuple[int, ...]]) -> list[Buffer]:
        return [Buffer.zeros(size, dtype) for (dtype, _), size in zip(inputs, sizes, strict=True)]

    run(model, *arrays(sizes))
    *read, (rows, columns) = sizes
    with pytest.raises(ValueError, match=re.escape(f"{name}: {message}")):
        run(model, *arrays([*read, (rows - 1, columns)]))


# --- what is refused while the graph is built ---------------------------------------------------------------


def build_error(inputs: Inputs, build: Callable[..., Any], device: DeviceRef = CPU) -> str:
    types = [TensorType(dtype, shape, device) for dtype, shape in inputs]
    with (
        pytest.raises(ValueError, match=":") as error,
        Graph("refused", input_types=types) as graph,
    ):
        build(*(value.tensor for value in graph.inputs))
    return str(error.value)


def test_sizes_are_checked_while_the_graph_is_built() -> None:
    inputs: list[tuple[DType, list[Any]]] = [
        (DType.float32, ["p", 96]),
        (DType.uint8, [4, 64, 2, 16]),
        (DType.uint8, [4, 64, 2]),
        (DType.bfloat16, [4, 64]),
        (DType.int32, [5]),
    ]
    assert build_error(inputs, ops.grouped_matmul) == (
        "mxfp4.grouped_matmul: x.shape[1] must be 32 * blocks.shape[2] = 64, got 96"
    )
    inputs[0] = (DType.float32, ["p", 64])
    inputs[2] = (DType.uint8, [4, 32, 2])
    assert build_error(inputs, ops.grouped_matmul) == (
        "mxfp4.grouped_matmul: scales.shape[1] must be blocks.shape[1] = 64, got 32"
    )
    assert build_error([(DType.float32, ["t", 4])], lambda x: ops.route(x, 5)) == (
        "moe.route: top_k must be between 1 and the number of experts = 4, got 5"
    )


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (DType.float32, [], "x must have rank 1 or more, got shape []"),
        (DType.float16, ["n", 32], "x must be DType.float32 or DType.bfloat16, got DType.float16"),
        (DType.bfloat16, ["n", 48], "x.shape[-1] must be a multiple of 32, got 48"),
    ],
)
def test_quantize_is_checked_while_the_graph_is_built(
    dtype: DType, shape: list[Any], message: str
) -> None:
    assert build_error([(dtype, shape)], ops.quantize) == f"mxfp4.quantize: {message}"


def test_activations_are_checked_while_the_graph_is_built() -> None:
    int4: Any = "int4"
    message = build_error(
        GROUPED_INPUTS, lambda x, b, s, bias, o: ops.grouped_matmul(x, b, s, bias, o, int4)
    )
    assert message == (
        'mxfp4.grouped_matmul: activations must be "bfloat16", "float32" or "int8", got "int4"'
    )


@pytest.mark.parametrize(("flags", "tile"), [("avx2 avx512f", 64), ("avx2", 32), ("", 32)])
def test_heads_that_the_kernel_cannot_cut_are_refused_while_the_graph_is_built(
    monkeypatch: pytest.MonkeyPatch, flags: str, tile: int
) -> None:
    cache: Any = None
    monkeypatch.setattr(toolchain, "processor", lambda: {"flags": flags})
    head_dim = tile * 3 // 2
    inputs: Inputs = [
        (DType.float32, ["t", 4, head_dim]),
        (DType.uint32, ["b"]),
        (DType.float32, [4]),
    ]
    assert build_error(inputs, lambda q, at, sinks: ops.attention(q, cache, at, at, sinks)) == (
        f"attention.paged: head_dim = q.shape[2] must be a multiple of {tile} on this CPU, got {head_dim}; "
        "MAX's on a GPU may take it"
    )


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "page"),
    [(64, 8, 32, 128), (72, 8, 64, 128), (64, 8, 64, 8), (64, 8, 64, 96)],
)
def test_heads_and_pages_that_hoppers_attention_has_no_lanes_for_are_refused(
    heads: int, kv_heads: int, head_dim: int, page: int
) -> None:
    shape = TensorType(DType.bfloat16, ["p", 2, 1, page, kv_heads, head_dim], DeviceRef.CPU()).shape
    blocks = SimpleNamespace(shape=shape, dtype=DType.bfloat16)
    cache: Any = SimpleNamespace(kv_blocks=blocks, kv_scales=None)
    inputs: Inputs = [
        (DType.bfloat16, ["t", heads, head_dim]),
        (DType.uint32, ["b"]),
        (DType.bfloat16, [heads]),
    ]

    def attend(q: TensorValue, at: TensorValue, sinks: TensorValue) -> TensorValue:
        return ops.attention_sm90(q, cache, at, at, sinks)

    assert build_error(inputs, attend, DeviceRef.GPU()) == (
        "attention.paged_sm90: takes heads of 64, at most 8 of them for each key-value head, and pages of 16 tokens "
        f"or another power of two above, got {head_dim}, {heads // kv_heads} and {page}; MAX's flash_attention_ragged "
        "may take them"
    )
    blocks.dtype = DType.float8_e4m3fn
    assert build_error(inputs, attend, DeviceRef.GPU()) == (
        "attention.paged_sm90: cache must be of DType.bfloat16, got DType.float8_e4m3fn"
    )
    assert build_error(inputs, attend) == (
        "attention.paged_sm90: has no CPU kernel, got inputs on cpu:0; move them to a GPU first"
    )


@pytest.mark.parametrize(
    ("x", "w", "bias", "message"),
    [
        ([2, 40], [8, 40], [8], "x.shape[1] must be a multiple of 32, got 40"),
        ([2, 32], [8, 64], [8], "w.shape[1] must be x.shape[1] = 32, got 64"),
        ([2, 32], [8, 32], [9], "bias.shape[0] must be w.shape[0] = 8, got 9"),
    ],
)
def test_sizes_that_hoppers_dense_matmul_has_not_are_refused(
    x: list[int], w: list[int], bias: list[int], message: str
) -> None:
    inputs = [(DType.bfloat16, shape) for shape in (x, w, bias)]
    op = "dense.matmul_bias_gpu"
    multiply = partial(ops.dense, kernel="sm90")
    assert build_error(inputs, multiply, DeviceRef.GPU()) == f"{op}: {message}"
    inputs[0] = (DType.float32, x)
    assert build_error(inputs, multiply, DeviceRef.GPU()) == (
        f"{op}: x must be DType.bfloat16, got DType.float32"
    )


def test_a_gpus_dense_matmul_gives_no_float64() -> None:
    inputs = [(DType.bfloat16, [2, 32]), (DType.bfloat16, [8, 32])]
    multiply = partial(ops.dense, dtype=DType.float64)
    assert build_error(inputs, multiply, DeviceRef.GPU()) == (
        "dense.matmul_gpu: dtype must be DType.bfloat16 or DType.float32, got DType.float64"
    )


@pytest.mark.parametrize("w", [["n", 32], [8, "k"]])
def test_a_gpus_dense_matmul_gives_float32_of_sizes_alone_that_the_graph_knows(
    w: list[int | str],
) -> None:
    """Of others MAX reads products where results are written already."""
    inputs: Inputs = [(DType.bfloat16, [2, w[1]]), (DType.bfloat16, w)]
    multiply = partial(ops.dense, dtype=DType.float32)
    assert build_error(inputs, multiply, DeviceRef.GPU()) == (
        "dense.matmul_gpu: w.shape must be known to the graph for a result of DType.float32, got "
        f"{next(size for size in w if isinstance(size, str))}"
    )


def test_devices_are_checked_while_the_graph_is_built() -> None:
    message = build_error([(DType.float32, ["n", 32])], ops.quantize, DeviceRef.GPU())
    assert message == (
        "mxfp4.quantize: has no GPU kernel, got inputs on gpu:0; move them to the CPU first"
    )
    packed: Inputs = [
        (DType.bfloat16, ["p", 64]),
        (DType.uint8, [4, 1, 1, 2176]),
        (DType.bfloat16, [4, 64]),
        (DType.int32, [5]),
    ]
    assert build_error(packed, ops.grouped_matmul_packed) == (
        "mxfp4.grouped_matmul_packed: takes weights packed for Hopper, got inputs on cpu:0; use "
        "mxfp4.grouped_matmul there"
    )
    assert build_error(
        [(DType.float32, ["p", 64]), *GROUPED_INPUTS[1:]], ops.grouped_matmul, DeviceRef.GPU()
    ) == ("mxfp4.grouped_matmul: x must be DType.bfloat16, got DType.float32")


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, ["p", 48], "x.shape[1] must be a multiple of 32, got 48"),
        (2, [4, 63], "bias.shape[1] must be even, got 63"),
        (1, [4, 1, 2, 2176], "tiles.shape[2] must be that of bias and x, packed = 1, got 2"),
        (1, [4, 1, 1, 2048], "tiles.shape[3] must be that of bias and x, packed = 2176, got 2048"),
        (3, [4], "expert_offsets.shape[0] must be bias.shape[0] + 1 = 5, got 4"),
        (
            2,
            [511, 64],
            "bias.shape[0] must be at most 510 experts, got 511; use mxfp4.grouped_matmul",
        ),
    ],
)
def test_packed_sizes_are_checked_while_the_graph_is_built(
    place: int, shape: list[Any], message: str
) -> None:
    inputs: list[tuple[DType, list[Any]]] = [
        (DType.bfloat16, ["p", 64]),
        (DType.uint8, [4, 1, 1, 2176]),
        (DType.bfloat16, [4, 64]),
        (DType.int32, [5]),
    ]
    inputs[place] = inputs[place][0], shape
    got = build_error(inputs, ops.grouped_matmul_packed, DeviceRef.GPU())
    assert got == f"mxfp4.grouped_matmul_packed: {message}"


@pytest.mark.parametrize(
    ("place", "dtype", "shape", "message"),
    [
        (0, DType.bfloat16, ["t", 48], "x.shape[1] must be a multiple of 32, got 48"),
        (0, DType.float32, ["t", 64], "x must be DType.bfloat16, got DType.float32"),
        (
            1,
            DType.uint8,
            [4, 2, 1, 2176],
            "gate_up_tiles.shape[1] must be that of gate_up_bias and x, packed = 3, got 2",
        ),
        (1, DType.int8, [4, 3, 1, 2176], "gate_up_tiles must be DType.uint8, got DType.int8"),
        (2, DType.bfloat16, [4, 191], "gate_up_bias.shape[1] must be even, got 191"),
        (
            2,
            DType.bfloat16,
            [511, 192],
            "gate_up_bias.shape[0] must be at most 510 experts, got 511; use "
            "mxfp4.grouped_matmul_swiglu and mxfp4.grouped_matmul",
        ),
        (
            2,
            DType.bfloat16,
            [4, 80],
            "gate_up_bias.shape[1] / 2 must be a multiple of 32, got 40",
        ),
        (
            3,
            DType.uint8,
            [4, 2, 2, 2176],
            "down_tiles.shape[1] must be that of x and gate_up_bias, packed = 1, got 2",
        ),
        (4, DType.bfloat16, [4, 66], "down_bias.shape[1] must be x.shape[1] = 64, got 66"),
        (4, DType.bfloat16, [3, 64], "down_bias.shape[0] must be gate_up_bias.shape[0] = 4, got 3"),
        (
            5,
            DType.int32,
            [4],
            "expert_offsets.shape[0] must be gate_up_bias.shape[0] + 1 = 5, got 4",
        ),
        (6, DType.int64, ["p"], "row_order must be DType.int32, got DType.int64"),
        (7, DType.int32, [5], "counts.shape[0] must be gate_up_bias.shape[0] = 4, got 5"),
    ],
)
def test_sizes_of_both_matmuls_are_checked_while_the_graph_is_built(
    place: int, dtype: DType, shape: list[Any], message: str
) -> None:
    inputs: list[tuple[DType, list[Any]]] = [
        (DType.bfloat16, ["t", 64]),
        (DType.uint8, [4, 3, 1, 2176]),
        (DType.bfloat16, [4, 192]),
        (DType.uint8, [4, 1, 2, 2176]),
        (DType.bfloat16, [4, 64]),
        (DType.int32, [5]),
        (DType.int32, ["p"]),
        (DType.int32, [4]),
    ]

    def both(
        x: TensorValue,
        gate_up: TensorValue,
        gate_up_bias: TensorValue,
        down: TensorValue,
        down_bias: TensorValue,
        *grouped: TensorValue,
    ) -> TensorValue:
        offsets, order, counts = grouped
        weights = gate_up, gate_up_bias, down, down_bias
        return ops.grouped_mlp_packed(x, *weights, offsets, order, counts, LIMIT)

    inputs[place] = dtype, shape
    if place == 2:
        inputs[1] = DType.uint8, [4, 2, 1, 2176]
    got = build_error(inputs, both, DeviceRef.GPU())
    assert got == f"mxfp4.grouped_mlp_packed: {message}"
    if place == 0:
        assert build_error(inputs, both) == (
            "mxfp4.grouped_mlp_packed: takes weights packed for Hopper, got inputs on cpu:0; use "
            "mxfp4.grouped_matmul_swiglu and mxfp4.grouped_matmul there"
        )
