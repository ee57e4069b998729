"""The compiled dense products of few tokens for Hopper against NumPy, in the emulator or on a GPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.custom_ops.mxfp4.assembler import assemble, disassemble, needs_nvdisasm, needs_ptxas
from tests.custom_ops.mxfp4.launch import launch, needs_emulator
from tests.custom_ops.mxfp4.ptx import SM90_DENSE, emit, facts
from tests.custom_ops.mxfp4.sass import assert_nothing_early
from tests.ptx_emulator.memory import MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16

NAN = 0x7FC0
VARIANTS = (8, 16, 32)
"""Tokens that a kernel has columns for."""
NAMES = [f"{name}_{columns}" for name in ("dense", "few") for columns in VARIANTS]
"""Kernels of 32 outputs to a block, and of 8."""


@pytest.fixture(scope="module")
def kernels() -> dict[str, str]:
    return emit(SM90_DENSE)


class Case:
    """Random activations, weights and a bias; the output is NaN.

    Args:
        tokens: T.
        outputs: N.
        k: K.
        rng: what is random.
    """

    def __init__(self, tokens: int, outputs: int, k: int, rng: np.random.Generator) -> None:
        self.x = encode_bfloat16(rng.standard_normal((tokens, k))).astype(np.uint16)
        self.w = encode_bfloat16(rng.standard_normal((outputs, k))).astype(np.uint16)
        self.bias = encode_bfloat16(4 * rng.standard_normal(outputs)).astype(np.uint16)

    def run(self, ptx: str, seed: int = 0, *, float32: bool = False) -> NDArray[np.float64]:
        """Gives what the kernel writes, of either dtype."""
        (tokens, k), outputs = self.x.shape, len(self.w)
        y: NDArray[Any] = np.full((tokens, outputs), NAN, np.uint16)
        if float32:
            y = np.full(y.shape, np.nan, np.float32)
        launch(
            ptx,
            [y, self.x, self.w, self.bias, tokens, outputs, k],
            grid=(-(-outputs // facts(ptx)["rows"]), 1, 1),
            unfinished=range(4),
            seed=seed,
        )
        return y.astype(np.float64) if float32 else decode_bfloat16(y)

    def want(self) -> NDArray[np.float64]:
        """Gives what it should."""
        return decode_bfloat16(self.x) @ decode_bfloat16(self.w).T + decode_bfloat16(self.bias)


def kernel_for(kernels: dict[str, str], name: str, tokens: int) -> str:
    """Gives the kernel that is launched for so many tokens."""
    return kernels[f"{name}_{next(columns for columns in VARIANTS if tokens <= columns)}"]


def test_few_outputs_have_more_blocks(kernels: dict[str, str]) -> None:
    """Both routers, and what still makes no more blocks than there are multiprocessors."""
    chosen = facts(kernels["dense_8"])
    outputs = (1, 32, 128, 1056, 1057, 2880, 5120)
    assert [chosen[f"rows_{count}"] for count in outputs] == [8] * 4 + [32] * 3


def assert_close(got: NDArray[np.float64], want: NDArray[np.float64]) -> None:
    """Each is rounded to bfloat16 once; what sums of float32 lose is little of them."""
    np.testing.assert_allclose(got, want, rtol=2**-8, atol=2**-14 * np.abs(want).max())


@pytest.mark.parametrize("name", ["dense", "few"])
@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 16, 17, 31, 32])
@pytest.mark.parametrize(
    ("outputs", "k"),
    [
        (32, 32),  # one step: seven warps have none
        (40, 32 * 9),  # one warp has a second one; a block with fewer outputs than rows
        (1, 32 * 31),  # fewer steps in the last turn than in those before
    ],
)
def test_products(
    kernels: dict[str, str], name: str, tokens: int, outputs: int, k: int, rng: np.random.Generator
) -> None:
    case = Case(tokens, outputs, k, rng)
    assert_close(case.run(kernel_for(kernels, name, tokens)), case.want())


def test_logits_of_a_router_are_not_rounded(
    kernels: dict[str, str], rng: np.random.Generator
) -> None:
    case = Case(7, 40, 32 * 31, rng)
    got, want = case.run(kernels["router_8"], float32=True), case.want()
    np.testing.assert_allclose(got, want, rtol=0, atol=2**-20 * np.abs(want).max())


@pytest.mark.parametrize("k", [2880, 4096])
def test_sizes_of_both_models(kernels: dict[str, str], k: int, rng: np.random.Generator) -> None:
    """Queries, keys and values, and what follows attention; a block's share of the outputs."""
    case = Case(4, 32, k, rng)
    assert_close(case.run(kernels["dense_8"]), case.want())


@pytest.mark.parametrize("k", [2880, 4096])
def test_blocks_of_few_outputs_have_all_steps_under_way_or_most(
    kernels: dict[str, str], k: int, rng: np.random.Generator
) -> None:
    """12 and 16 of a warp, where up to 12 are under way."""
    case = Case(17, 8, k, rng)
    assert_close(case.run(kernels["few_32"]), case.want())
    case = Case(4, 8, k, rng)
    assert_close(case.run(kernels["few_8"]), case.want())


@pytest.mark.parametrize("name", ["dense_8", "few_8"])
def test_the_order_of_warps_changes_nothing(
    kernels: dict[str, str], name: str, rng: np.random.Generator
) -> None:
    case = Case(3, 33, 32 * 20, rng)
    first = case.run(kernels[name])
    for seed in (1, 2):
        np.testing.assert_array_equal(first, case.run(kernels[name], seed))


@needs_emulator
@pytest.mark.parametrize("name", ["dense_8", "few_8"])
def test_a_missing_wait_within_a_block_is_seen(
    kernels: dict[str, str], name: str, rng: np.random.Generator
) -> None:
    """Of a lane for what it has copied, of warps before sums overwrite that, and before sums are read."""
    ptx = kernels[name]
    waits = list(re.finditer(r"bar\.sync\s+0;|cp\.async\.wait_group\s+\d+;", ptx))
    assert len(waits) == 3
    case = Case(8, 32, 32 * 50, rng)
    right = case.run(ptx)

    def is_right(without: str, seed: int) -> bool:
        try:
            with np.errstate(over="ignore"):  # of anything that is taken for numbers
                return np.array_equal(case.run(without, seed), right)
        except MemoryAccessError:
            return False

    for found in waits:
        without = ptx[: found.start()] + ptx[found.end() :]
        assert not all(is_right(without, seed) for seed in range(10)), found


@needs_emulator
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_wait_for_the_kernel_before_is_seen(
    kernels: dict[str, str], name: str, rng: np.random.Generator
) -> None:
    case = Case(8, 32, 64, rng)
    ptx = kernels[name]
    case.run(ptx)
    with pytest.raises(RuntimeError, match="before the wait for the kernel before"):
        case.run(ptx.replace("griddepcontrol.wait;", ""))


@needs_nvdisasm
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_read_or_written_before_the_wait_for_the_kernel_before(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """Weights neither: an op of a graph may make them."""
    assert_nothing_early(disassemble(kernels[name], tmp_path))


@needs_ptxas
@pytest.mark.parametrize("name", [*NAMES, "router_8"])
def test_the_assembler_has_nothing_to_say(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """Two blocks of 256 threads to a multiprocessor, and of shared memory, but where there are few blocks."""
    ptx = kernels[name]
    report, _ = assemble(ptx, tmp_path)
    assert "warning" not in report.lower(), report
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report)
    found = re.search(r"Used (\d+) registers", report)
    assert found, report
    assert int(found[1]) <= 128
    blocks = 2 if name.startswith("dense") else 1
    assert blocks * (facts(ptx)["shared_bytes"] + 1024) <= 228 * 1024
