"""The compiled Hopper kernels against float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.custom_ops.mxfp4.launch import launch, needs_emulator
from tests.ptx_emulator.memory import MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16
from tests.ptx_emulator.tensor_core import Mode
from tests.reference.mxfp4 import dequantize
from tests.reference.sm90_tiles import CODE_BYTES, swizzle

Y, X, OFFSETS, ORDER = 0, 1, 4, 5
"""Positions of arguments."""


@dataclass(frozen=True)
class Case:
    """One launch.

    Args:
        rows: of each expert.
        n: weight rows.
        k: of the product.
        top_k: 0 where x is in expert order.
        grid: blocks.
        bad_order: what to put into the last place of the row order, if anything.
        bias: what an expert's begins with, if not at random.
    """

    rows: tuple[int, ...]
    n: int
    k: int
    top_k: int = 0
    grid: int = 2
    bad_order: int = 0
    bias: tuple[float, ...] = ()


def multiply(
    ptx: str, case: Case, *, gated: bool, mode: Mode = Mode.LAZY, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs a kernel; gives what it wrote and what it should have."""
    rng = np.random.default_rng(1)
    experts, rows = len(case.rows), sum(case.rows)
    offsets = np.concatenate([[0], np.cumsum(case.rows)]).astype(np.int32)
    blocks = rng.integers(0, 256, (experts, case.n, case.k // 32, 16), dtype=np.uint8)
    scales = rng.integers(115, 129, (experts, case.n, case.k // 32), dtype=np.uint8)
    bias = encode_bfloat16(rng.normal(size=(experts, case.n))).astype(np.uint16)
    bias[:, : len(case.bias)] = encode_bfloat16(np.array(case.bias))
    tokens = rows // case.top_k if case.top_k else rows
    x = encode_bfloat16(rng.normal(size=(tokens, case.k)) / 64).astype(np.uint16)
    order = rng.permutation(rows).astype(np.int32)
    y = np.full((rows, case.n // 2 if gated else case.n), 0x7FC0, np.uint16)
    if case.bad_order:
        order[-1] = case.bad_order
    launch(
        ptx,
        [
            *(y, x, swizzle(blocks, scales), bias, offsets, order),
            *(rows, experts, case.n, case.k, case.top_k, np.float32(7)),
        ],
        grid=(case.grid, 1, 1),
        unfinished=(Y, X, OFFSETS, ORDER) if gated else (Y, X),
        fresh=() if gated else (OFFSETS,),
        mode=mode,
        seed=seed,
    )

    weights = dequantize(blocks, scales)
    taken = decode_bfloat16(x)[
        np.minimum(order // case.top_k, tokens - 1) if case.top_k else np.arange(rows)
    ]
    want = np.empty((rows, case.n))
    for e in range(experts):
        of_expert = slice(offsets[e], offsets[e + 1])
        want[of_expert] = taken[of_expert] @ weights[e].T + decode_bfloat16(bias[e])
    if gated:
        gate, up = np.minimum(want[:, ::2], 7), np.clip(want[:, 1::2], -7, 7)
        with np.errstate(invalid="ignore"):
            want = (up + 1) * gate / (1 + np.exp(-1.702 * gate))
    return decode_bfloat16(y), want


def largest_error(got: NDArray[np.float64], want: NDArray[np.float64]) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


OUTPUT_ROUNDING = 2**-8
"""The output is rounded to bfloat16; everything before it is exact or float32."""

CASES = {
    # Several k tiles always, and more of them than stages; tails in rows, n and k; experts without rows.
    "decode_8": [
        Case((3, 0, 9), n=128, k=1472),
        Case((1,), n=64, k=64),
        Case((0, 2), n=96, k=352, grid=1),
        Case((4, 0, 3, 1), n=64, k=320, top_k=4),
        Case((3, 2), n=66, k=96),
        Case((1,), n=96, k=96),
    ],
    "decode_8_gated": [Case((2, 0, 6), n=96, k=224, top_k=4)],
    # Two row tiles at a time, the last of which may be alone.
    "decode_16": [Case((9, 1), n=128, k=1280), Case((3, 0, 17), n=192, k=352)],
    "decode_16_gated": [
        Case((17, 1), n=192, k=832),
        Case((0, 5, 11), n=96, k=224, top_k=4, grid=3),
        Case((1,), n=64, k=64, grid=1),
    ],
    # Tiles of up to half as many rows are multiplied as narrow ones.
    "middle_64": [Case((65,), n=64, k=160), Case((33, 32), n=64, k=64)],
    "middle_64_gated": [Case((65, 3), n=192, k=928, top_k=4)],
    "prefill_128": [Case((130, 5), n=320, k=640), Case((65, 64), n=64, k=64)],
    "prefill_128_gated": [Case((9, 0, 131), n=320, k=672, top_k=4, grid=3)],
}


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
def test_products_are_those_of_float64(kernels: dict[str, str], name: str, case: Case) -> None:
    got, want = multiply(kernels[name], case, gated=name.endswith("gated"))
    assert largest_error(got, want) < OUTPUT_ROUNDING


@needs_emulator
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("seed", range(1, 4))
def test_whatever_comes_first(kernels: dict[str, str], mode: Mode, seed: int) -> None:
    """Tensor cores at once or at the last moment, warps and copies in other orders."""
    for name in ("decode_8", "decode_16", "middle_64"):
        case = Case((9, 3), n=64, k=576)
        got, want = multiply(kernels[name], case, gated=False, mode=mode, seed=seed)
        assert largest_error(got, want) < OUTPUT_ROUNDING


@pytest.mark.parametrize("bad", [-1, 8, 2**30])
def test_a_row_order_that_leaves_the_rows_reads_nothing(kernels: dict[str, str], bad: int) -> None:
    """Memory outside of any buffer is an error of the emulator; all other rows are right."""
    case = Case((4, 0, 3, 1), n=64, k=320, top_k=4, bad_order=bad)
    got, want = multiply(kernels["decode_8"], case, gated=False)
    assert largest_error(got[:-1], want[:-1]) < OUTPUT_ROUNDING


@pytest.mark.parametrize("name", ["decode_8", "decode_8_gated", "middle_64_gated"])
def test_bias_that_is_no_number_or_past_the_clamps(kernels: dict[str, str], name: str) -> None:
    """Of gates and ups, in turns. What is NaN stays it: clamps are no place for it to vanish."""
    gated = name.endswith("gated")
    bias: tuple[float, ...] = (np.nan, 0, 0, np.nan, 100, 100, 100, -100, -100, 3, 7.5, -6.5)
    if gated:
        bias += (np.inf, -np.inf, -np.inf, 1)
    case = Case((3,), n=64, k=64, top_k=3 if gated else 0, grid=1, bias=bias)
    got, want = multiply(kernels[name], case, gated=gated)
    assert (np.isnan(got) == np.isnan(want)).all()
    assert np.isnan(got).any(axis=0).sum() == (3 if gated else 2)
    numbers = ~np.isnan(want)
    assert largest_error(got[numbers], want[numbers]) < OUTPUT_ROUNDING


def test_no_rows_write_nothing(kernels: dict[str, str]) -> None:
    got, _ = multiply(kernels["decode_8"], Case((0, 0), n=64, k=128), gated=False)
    assert got.size == 0


def swap_registers(ptx: str) -> str:
    """A's second and third registers exchanged: rows r and r + 8 for k and k + 8."""
    a = r"\{(%r\d+), (%r\d+), (%r\d+), (%r\d+)\}(,\s*(?:%rd\d+, p,|\{%r\d+, %r\d+\},))"
    return re.sub(a, r"{\1, \3, \2, \4}\5", ptx)


def swap_registers_of_b(ptx: str) -> str:
    """B's two registers exchanged: k for k + 8."""
    return re.sub(r"(\},\s*)\{(%r\d+), (%r\d+)\}(,\s*\{)", r"\1{\3, \2}\4", ptx)


def wait_for_nothing(ptx: str) -> str:
    """Fragments are decoded into registers that products in flight still read."""
    return ptx.replace("wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 63;")


def forget_the_scales_tile(ptx: str) -> str:
    """Every k tile of a stage is multiplied by the first one's scales."""
    words = re.findall(r"ld\.shared\.v4\.b32 [^;]*\+(\d+)\];", ptx)
    first, *others = sorted({int(word) + CODE_BYTES for word in words})
    for other in others:
        ptx = ptx.replace(f"+{other}];", f"+{first}];")
    return ptx


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("decode_8", swap_registers),
        ("decode_8", swap_registers_of_b),
        ("decode_8", forget_the_scales_tile),
        ("middle_64", swap_registers),
        pytest.param("middle_64", wait_for_nothing, marks=needs_emulator),
        ("middle_64", forget_the_scales_tile),
    ],
)
def test_a_fault_is_seen(kernels: dict[str, str], name: str, fault: Callable[[str], str]) -> None:
    """What an earlier attempt at such a kernel had wrong, put into this one."""
    ptx = kernels[name]
    assert fault(ptx) != ptx
    got, want = multiply(fault(ptx), Case((5,), n=64, k=1280, grid=1), gated=False)
    assert not largest_error(got, want) < 0.1


@needs_emulator
def test_a_missing_proxy_fence_is_seen(kernels: dict[str, str]) -> None:
    ptx = kernels["middle_64"].replace("fence.proxy.async.shared::cta;", "")
    with pytest.raises(MemoryAccessError, match="with no proxy fence between"):
        multiply(ptx, Case((5,), n=64, k=576, grid=1), gated=False)


@needs_emulator
@pytest.mark.parametrize("name", ["decode_8", "decode_8_gated"])
def test_a_missing_wait_for_the_kernel_before_is_seen(kernels: dict[str, str], name: str) -> None:
    ptx = kernels[name].replace("griddepcontrol.wait;", "")
    ptx = ptx.replace("griddepcontrol.launch_dependents;", "")
    with pytest.raises(MemoryAccessError, match="the kernel before still writes it"):
        multiply(ptx, Case((5,), n=64, k=576, grid=1), gated=name.endswith("gated"))


@needs_emulator
def test_offsets_out_of_an_old_cache_are_seen(kernels: dict[str, str]) -> None:
    ptx = kernels["decode_8"].replace("ld.volatile.global", "ld.global")
    with pytest.raises(MemoryAccessError, match="the first-level cache may have older lines"):
        multiply(ptx, Case((5,), n=64, k=576, grid=1), gated=False)


@needs_emulator
def test_the_next_kernel_begun_too_early_is_seen(kernels: dict[str, str]) -> None:
    ptx = kernels["decode_8"].replace("griddepcontrol.wait;", "")
    with pytest.raises(RuntimeError, match="before the wait for the kernel before"):
        multiply(ptx, Case((5,), n=64, k=576, grid=1), gated=False)


def test_runs_repeat_bit_for_bit(kernels: dict[str, str]) -> None:
    case = Case((5, 3), n=64, k=576)
    runs = [multiply(kernels["decode_8"], case, gated=False, seed=seed)[0] for seed in (1, 2)]
    assert (runs[0] == runs[1]).all()
