"""The compiled kernels for any GPU against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import tolerances
from tests.custom_ops.mxfp4.launch import launch, needs_emulator
from tests.measure import RelativeError, relative_error
from tests.ptx_emulator.memory import MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16
from tests.reference import moe, mxfp4, sm90_tiles

LIMIT = 7.0
NAN = 0x7FC0
"""What outputs hold before: a kernel that leaves one out is seen."""

ROUNDED = RelativeError(maximum=2**-5, rms=2**-8 / 3**0.5)
"""Outputs rounded to bfloat16, that is evenly within 2^-8 of themselves at most; the largest are up to 8 times the root
mean square."""


def bfloat16(x: Any) -> NDArray[np.uint16]:
    return encode_bfloat16(np.asarray(x)).astype(np.uint16)


def assert_close(got: Any, want: Any, bound: RelativeError) -> None:
    error = relative_error(got, want)
    assert error.maximum <= bound.maximum, error
    assert error.rms <= bound.rms, error


def held(experts: int) -> int:
    """Experts of a lane in the kernel that is launched for so many."""
    return next(count for count in (1, 4, 16) if experts <= 32 * count)


def route(kernels: dict[str, str], logits: NDArray[np.float32], top_k: int) -> tuple[Any, Any]:
    tokens, experts = logits.shape
    ptx = kernels[f"route_{held(experts)}"]
    ids = np.full((tokens, top_k), -7, np.int32)
    weights = np.full((tokens, top_k), np.nan, np.float32)
    arguments = [ids, weights, logits, tokens, experts, top_k]
    launch(ptx, arguments, grid=(-(-tokens // 4), 1, 1), threads=128, unfinished=range(3))
    return ids, weights


@pytest.mark.parametrize(
    ("experts", "top_k"),
    [(4, 4), (6, 4), (32, 4), (128, 4), (129, 5), (160, 1), (256, 8), (40, 32), (512, 3)],
)
def test_route(kernels: dict[str, str], experts: int, top_k: int, rng: np.random.Generator) -> None:
    logits = np.stack(
        [
            rng.standard_normal(experts),
            rng.integers(-2, 3, experts),  # ties, which go to the lower id
            np.where(rng.random(experts) < 0.5, 0.0, -0.0),  # zeros of both signs tie
            np.full(experts, -1e30),
        ]
    ).astype(np.float32)
    ids, weights = route(kernels, logits, top_k)
    want_ids, want_weights = moe.route(logits, top_k)
    np.testing.assert_array_equal(ids, want_ids)
    assert_close(weights, want_weights, tolerances.ROUTING_WEIGHTS)


def test_route_survives_nan_and_infinity(kernels: dict[str, str]) -> None:
    logits = np.zeros((4, 32), np.float32)
    logits[0] = np.nan
    logits[1, ::2] = np.nan
    logits[2, ::2] = -np.float32(np.nan)
    logits[3, 0] = np.inf
    logits[3, 1:3] = np.array(2**32 - 1, np.uint32).view(np.float32)  # the lowest key there is
    ids, _ = route(kernels, logits, 4)
    assert ((ids >= 0) & (ids < 32)).all()
    assert all(len(set(row)) == 4 for row in ids.tolist())


def group(ptx: str, ids: NDArray[np.int32], experts: int) -> tuple[Any, Any, Any]:
    order = np.full(ids.size, -7, np.int32)
    places = np.full(ids.shape, -7, np.int32)
    offsets = np.full(experts + 1, -7, np.int32)
    counts = np.full(experts, -7, np.int32)
    launch(
        ptx,
        [order, places, offsets, counts, ids, ids.size, experts],
        grid=(experts, 1, 1),
        threads=1024,
        unfinished=range(5),
    )
    assert not counts.any()
    return order, places, offsets


@pytest.mark.parametrize("tokens", [0, 1, 5, 256, 257, 800])
def test_group(kernels: dict[str, str], tokens: int, rng: np.random.Generator) -> None:
    """As many rows as threads and more, whole runs of threads without rows, and experts without rows."""
    for drawn in (rng.integers(0, 6, (tokens, 4)), np.full((tokens, 4), 2)):
        ids = drawn.astype(np.int32)
        got = group(kernels["group"], ids, 6)
        for one, want in zip(got, moe.group(ids, 6), strict=True):
            np.testing.assert_array_equal(one, want)


def test_group_gives_ids_of_no_expert_no_place(kernels: dict[str, str]) -> None:
    ids = np.array([[0, 3], [-1, 4], [2**31 - 1, 0], [-(2**31), 3]], np.int32)
    order, places, offsets = group(kernels["group"], ids, 4)
    assert offsets.tolist() == [0, 2, 2, 2, 4]
    assert places.tolist() == [[0, 2], [-1, -1], [-1, 1], [-1, 3]]
    assert order[:4].tolist() == [0, 5, 1, 7]


def route_and_group(kernels: dict[str, str], logits: NDArray[np.float32], top_k: int) -> list[Any]:
    tokens, experts = logits.shape
    ptx = kernels[f"route_and_group_{held(experts)}"]
    outputs: list[Any] = [np.full((tokens, top_k), -7, np.int32)]
    outputs += [np.full((tokens, top_k), np.nan, np.float32)]
    outputs += [np.full(shape, -7, np.int32) for shape in (tokens * top_k, (tokens, top_k))]
    outputs += [np.full(size, -7, np.int32) for size in (experts + 1, experts)]
    arguments = [*outputs, logits, tokens, experts, top_k]
    launch(ptx, arguments, grid=(1, 1, 1), threads=1024, unfinished=range(7))
    return outputs


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k"),
    [
        *((0, 4, 2), (1, 32, 4), (4, 128, 4), (33, 6, 4), (64, 32, 4), (5, 129, 5), (3, 256, 8)),
        *((16, 40, 32), (1, 512, 1)),
    ],
)
def test_few_tokens_are_routed_and_grouped_at_once(
    kernels: dict[str, str], tokens: int, experts: int, top_k: int, rng: np.random.Generator
) -> None:
    """As by the two kernels, to the bit; more tokens than warps, and ties."""
    logits = (rng.integers(-8, 9, (tokens, experts)) / 4).astype(np.float32)
    ids, weights, *grouped, counts = route_and_group(kernels, logits, top_k)
    want_ids, _ = moe.route(logits, top_k)
    np.testing.assert_array_equal(ids, want_ids)
    if tokens:
        np.testing.assert_array_equal(weights, route(kernels, logits, top_k)[1])
    for got, want in zip(grouped, moe.group(want_ids, experts), strict=True):
        np.testing.assert_array_equal(got, want)
    assert not counts.any()


def combine(
    ptx: str,
    y: NDArray[np.uint16],
    places: NDArray[np.int32],
    weights: Any,
    residual: NDArray[np.uint16],
    width: int,
) -> NDArray[np.float64]:
    (tokens, top_k), hidden = places.shape, y.shape[1]
    result = np.full((tokens, hidden), NAN, np.uint16)
    launch(
        ptx,
        [result, y, places, weights.astype(np.float32), residual, tokens, top_k, hidden],
        grid=(-(-tokens * hidden // (128 * width)), 1, 1),
        threads=128,
        unfinished=range(5),
    )
    return decode_bfloat16(result)


@pytest.mark.parametrize(
    ("width", "hidden", "top_k"), [(1, 33, 4), (1, 130, 1), (8, 64, 5), (8, 1032, 4), (8, 16, 8)]
)
def test_combine(
    kernels: dict[str, str], width: int, hidden: int, top_k: int, rng: np.random.Generator
) -> None:
    y, weights = bfloat16(rng.standard_normal((3 * top_k, hidden))), rng.random((3, top_k))
    places = rng.permutation(3 * top_k).astype(np.int32).reshape(3, top_k)
    residual = bfloat16(rng.standard_normal((3, hidden)))
    got = combine(kernels[f"combine_{width}"], y, places, weights, residual, width)
    want = decode_bfloat16(residual) + moe.combine(decode_bfloat16(y), places, weights)
    assert_close(got, want, ROUNDED)


@pytest.mark.parametrize("bad", [-1, 2, 4, 2**30])
def test_combine_leaves_out_what_has_no_place(kernels: dict[str, str], bad: int) -> None:
    """Whatever its share, and whatever a row holds that is loaded in its place."""
    y = bfloat16(np.arange(1.0, 33.0).reshape(4, 8))
    y[0] = NAN
    places, residual = np.array([[1, bad]], np.int32), bfloat16(np.full((1, 8), 100.0))
    got = combine(kernels["combine_8"], y, places, np.array([[1.0, np.nan]]), residual, 8)
    np.testing.assert_array_equal(got, decode_bfloat16(y)[1:2] + 100)


ONE_TOKEN: dict[str, Callable[[str], Any]] = {
    "route_1": lambda ptx: route({"route_1": ptx}, np.zeros((1, 4), np.float32), 1),
    "group": lambda ptx: group(ptx, np.zeros((1, 1), np.int32), 4),
    "route_and_group_1": lambda ptx: route_and_group(
        {"route_and_group_1": ptx}, np.zeros((1, 4), np.float32), 1
    ),
    "combine_8": lambda ptx: combine(
        ptx,
        bfloat16([[0] * 8]),
        np.zeros((1, 1), np.int32),
        np.ones((1, 1)),
        bfloat16([[0] * 8]),
        8,
    ),
}


@needs_emulator
@pytest.mark.parametrize("name", ONE_TOKEN)
def test_a_missing_wait_for_the_kernel_before_is_seen(kernels: dict[str, str], name: str) -> None:
    ONE_TOKEN[name](kernels[name])
    ptx = kernels[name].replace("griddepcontrol.wait;", "")
    with pytest.raises(RuntimeError, match="before the wait for the kernel before"):
        ONE_TOKEN[name](ptx)
    with pytest.raises(MemoryAccessError, match="the kernel before still writes it"):
        ONE_TOKEN[name](ptx.replace("griddepcontrol.launch_dependents;", ""))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dequantize_every_code_and_scale(kernels: dict[str, str], dtype: str) -> None:
    """256 scales with two groups each, which hold every code at every place of a byte and a word."""
    codes = np.resize(np.arange(16), (512, 32)) + np.arange(512)[:, None]
    blocks = mxfp4.pack((codes % 16).astype(np.uint8))
    scales = np.repeat(np.arange(256), 2).astype(np.uint8)
    y = np.full((512, 32), np.nan, np.float32)
    if dtype == "bfloat16":
        y = np.full((512, 32), NAN, np.uint16)
    launch(
        kernels[f"dequantize_{dtype}"],
        [y, blocks, scales, 512],
        grid=(8, 1, 1),
        threads=256,
    )
    want = mxfp4.dequantize(blocks[:, None], scales[:, None]).reshape(512, 32)
    got = y if dtype == "float32" else decode_bfloat16(y)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("gated", [False, True])
def test_strided_matmul(kernels: dict[str, str], gated: bool, rng: np.random.Generator) -> None:
    """Every scale byte that leaves sums finite; an expert without rows, a tail in the outputs."""
    experts, n, k, rows = 3, 280, 96, (3, 0, 5)
    weights = moe.ExpertWeights(
        rng.integers(0, 256, (experts, n, k // 32, 16), dtype=np.uint8),
        rng.integers(100, 135, (experts, n, k // 32), dtype=np.uint8),
        decode_bfloat16(bfloat16(rng.standard_normal((experts, n)))),
    )
    offsets = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    top_k = 4 if gated else 0
    x = bfloat16(rng.standard_normal((8 // (top_k or 1), k)) / 64)
    order = rng.permutation(8).astype(np.int32)
    outputs = n // 2 if gated else n
    y = np.full((8, outputs), NAN, np.uint16)
    launch(
        kernels["strided_gated" if gated else "strided"],
        [
            *(y, x, weights.blocks, weights.scales, bfloat16(weights.bias), offsets, order),
            *(8, experts, n, k, top_k, np.float32(LIMIT)),
        ],
        grid=(8, -(-outputs // 128), 1),
        threads=128,
    )
    values = decode_bfloat16(x)
    want = (
        moe.grouped_matmul_swiglu(values, weights, offsets, order, LIMIT)
        if gated
        else moe.grouped_matmul(values, weights, offsets)
    )
    assert_close(decode_bfloat16(y), want, ROUNDED)


def test_strided_matmul_leaves_out_rows_of_no_expert(kernels: dict[str, str]) -> None:
    blocks, scales = np.full((2, 32, 1, 16), 0x22, np.uint8), np.full((2, 32, 1), 127, np.uint8)
    bias, x = np.zeros((2, 32), np.uint16), bfloat16(np.ones((1, 32)))
    for offsets, order, written in (
        ([0, 1, 2], [0, 1, 2, -1], [0, 1]),
        ([3, 2, 4], [0, 1, 2, 9], [2]),  # do not ascend; the last row's order is none
    ):
        y = np.full((4, 32), NAN, np.uint16)
        launch(
            kernels["strided"],
            [
                *(y, x, blocks, scales, bias),
                *(np.array(offsets, np.int32), np.array(order, np.int32)),
                *(4, 2, 32, 32, 4, np.float32(LIMIT)),
            ],
            grid=(4, 1, 1),
            threads=128,
        )
        got = decode_bfloat16(y)
        assert (got[written] == 32).all()
        assert np.isnan(np.delete(got, written, axis=0)).all()


def test_swizzle(kernels: dict[str, str], rng: np.random.Generator) -> None:
    blocks = rng.integers(0, 256, (2, 96, 3, 16), dtype=np.uint8)
    scales = rng.integers(0, 129, (2, 96, 3), dtype=np.uint8)
    want = sm90_tiles.swizzle(blocks, scales)
    packed = np.full(want.shape, 0xEE, np.uint8)
    launch(
        kernels["swizzle"],
        [packed, blocks, scales, 96, 96],
        grid=(8, 1, 1),
        threads=512,
    )
    np.testing.assert_array_equal(packed, want)
