"""The compiled kernels of both matmuls against float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.custom_ops.mxfp4.assembler import (
    assemble,
    disassemble,
    needs_nvdisasm,
    needs_ptxas,
)
from tests.custom_ops.mxfp4.launch import ON_GPU, launch, needs_emulator
from tests.custom_ops.mxfp4.ptx import SM90_MLP, emit, facts
from tests.custom_ops.mxfp4.sass import assert_nothing_early
from tests.custom_ops.mxfp4.sm90.test_ptxas import BUDGET, issued_for_a_tile
from tests.ptx_emulator.memory import MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16
from tests.ptx_emulator.tensor_core import Mode
from tests.reference.mxfp4 import dequantize
from tests.reference.sm90_tiles import swizzle

Y, H, STORED, X, OFFSETS, ORDER = 0, 1, 2, 3, 8, 9
"""Positions of arguments."""


@dataclass(frozen=True)
class Case:
    """One launch.

    Args:
        rows: of each expert.
        hidden: of the model.
        inner: of an expert.
        top_k: routed rows of a token.
        grid: blocks.
    """

    rows: tuple[int, ...]
    hidden: int
    inner: int
    top_k: int = 1
    grid: int = 3


def run(
    ptx: str, case: Case, *, mode: Mode = Mode.LAZY, seeds: Sequence[int] = (0,)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs a kernel by each seed, which all give the same bits; gives what it wrote and what it should have."""
    rng = np.random.default_rng(1)
    experts, rows = len(case.rows), sum(case.rows)
    offsets = np.concatenate([[0], np.cumsum(case.rows)]).astype(np.int32)
    weights, packed, biases = [], [], []
    for n, k in ((2 * case.inner, case.hidden), (case.hidden, case.inner)):
        blocks = rng.integers(0, 256, (experts, n, k // 32, 16), dtype=np.uint8)
        scales = rng.integers(118, 126, (experts, n, k // 32), dtype=np.uint8)
        weights.append(dequantize(blocks, scales))
        packed.append(swizzle(blocks, scales))
        biases.append(encode_bfloat16(rng.normal(size=(experts, n))).astype(np.uint16))
    tokens = rows // case.top_k
    x = encode_bfloat16(rng.normal(size=(tokens, case.hidden)) / 8).astype(np.uint16)
    order = rng.permutation(rows).astype(np.int32)
    taken = decode_bfloat16(x)[order // case.top_k]
    inner = np.empty((rows, case.inner))
    for e, of_expert in enumerate(map(slice, offsets, offsets[1:])):
        gates = taken[of_expert] @ weights[0][e].T + decode_bfloat16(biases[0][e])
        gate, up = np.minimum(gates[:, ::2], 7), np.clip(gates[:, 1::2], -7, 7)
        inner[of_expert] = (up + 1) * gate / (1 + np.exp(-1.702 * gate))
    runs = []
    for seed in seeds:
        y = np.full((rows, case.hidden), 0x7FC0, np.uint16)
        h = np.full((rows, case.inner), 0x7FC0, np.uint16)
        stored = np.zeros(experts, np.int32)
        launch(
            ptx,
            [
                *(y, h, stored, x, packed[0], biases[0], packed[1], biases[1], offsets, order),
                *(rows, experts, case.hidden, case.inner, case.top_k, np.float32(7)),
            ],
            grid=(case.grid, 1, 1),
            at_once=True,
            unfinished=(Y, H, STORED, X, OFFSETS, ORDER),
            mode=mode,
            seed=seed,
        )
        runs.append((y, h))
    for y, h in runs[1:]:
        assert (y == runs[0][0]).all()
        assert (h == runs[0][1]).all()
    got, rounded = map(decode_bfloat16, runs[0])
    want = np.empty((rows, case.hidden))
    for e, of_expert in enumerate(map(slice, offsets, offsets[1:])):
        most = np.abs(inner[of_expert]).max(initial=0)
        assert (np.abs(rounded[of_expert] - inner[of_expert]) <= 2**-8 * most).all()
        want[of_expert] = rounded[of_expert] @ weights[1][e].T + decode_bfloat16(biases[1][e])
    return got, want


CASES = {
    "mlp_8": [
        Case((3, 0, 9), hidden=352, inner=96),
        Case((1,), hidden=64, inner=64),
        Case((0, 2, 6), hidden=96, inner=352, top_k=4, grid=5),
        Case((1, 1, 1, 1), hidden=96, inner=160, top_k=4, grid=30),
        Case((0, 2), hidden=64, inner=96, grid=1),
        # Items of the second matmul have more stages than there are slots, and some are begun before h is there.
        Case((1, 0, 2), hidden=160, inner=1376, grid=3),
    ],
    "mlp_16": [
        Case((17, 1), hidden=224, inner=96),
        Case((0, 5, 11), hidden=160, inner=224, top_k=4, grid=2),
        Case((2, 9), hidden=160, inner=928, grid=2),
    ],
}


@pytest.fixture(scope="module")
def kernels() -> dict[str, str]:
    """PTX by configuration."""
    return emit(SM90_MLP)


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
def test_both_matmuls_are_those_of_float64(kernels: dict[str, str], name: str, case: Case) -> None:
    """Blocks with items of both, of the second alone, and of none; in orders of their own."""
    got, want = run(kernels[name], case, seeds=range(2))
    assert np.abs(got - want).max() < 2**-8 * np.abs(want).max()


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU: an emulator takes hours for it")
@pytest.mark.parametrize(
    ("name", "rows", "blocks"), [("mlp_8", (1, 1, 1, 1), 396), ("mlp_16", (16, 9, 0, 7), 264)]
)
def test_sizes_of_20b_on_all_multiprocessors(
    kernels: dict[str, str], name: str, rows: tuple[int, ...], blocks: int
) -> None:
    case = Case(rows, hidden=2880, inner=2880, grid=blocks)
    got, want = run(kernels[name], case, seeds=range(20))
    assert np.abs(got - want).max() < 2**-8 * np.abs(want).max()


def count_twice(ptx: str) -> str:
    """Half of h's tiles are taken for all."""
    return re.sub(r"(red\.release[^;]*;)", r"\1 \1", ptx)


def load_at_once(ptx: str) -> str:
    """Nobody waits for h."""
    return re.sub(r"ld\.acquire\.gpu\.global\.s32 (%r\d+), [^;]*;", r"mov.b32 \1, 1048576;", ptx)


def load_without_acquiring(ptx: str) -> str:
    """The count is seen, and what was stored before it need not be."""
    return ptx.replace("ld.acquire.gpu.global", "ld.volatile.global")


@needs_emulator
@pytest.mark.parametrize("fault", [count_twice, load_at_once, load_without_acquiring])
def test_h_that_need_not_be_there_is_seen(
    kernels: dict[str, str], fault: Callable[[str], str]
) -> None:
    ptx = kernels["mlp_8"]
    assert fault(ptx) != ptx
    case = Case((3, 0, 9), hidden=352, inner=96)

    with pytest.raises(MemoryAccessError, match="need not see what block"):
        run(fault(ptx), case, seeds=range(4))  # a block that comes late may find all there


@needs_emulator
@pytest.mark.parametrize("name", ["mlp_8", "mlp_16"])
def test_a_missing_wait_for_the_kernel_before_is_seen(kernels: dict[str, str], name: str) -> None:
    """By what is read of what that one writes, and by what tells the next one to begin."""
    case = Case((3, 0, 9), hidden=96, inner=96)
    ptx = kernels[name].replace("griddepcontrol.wait;", "")
    with pytest.raises(RuntimeError, match="before the wait for the kernel before"):
        run(ptx, case)
    with pytest.raises(MemoryAccessError, match="the kernel before still writes it"):
        run(ptx.replace("griddepcontrol.launch_dependents;", ""), case)


@needs_nvdisasm
@pytest.mark.parametrize("name", ["mlp_8", "mlp_16"])
def test_nothing_but_a_bias_is_read_or_written_before_the_wait_for_the_kernel_before(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """Weights neither."""
    assert_nothing_early(disassemble(kernels[name], tmp_path), constants=1)


@needs_nvdisasm
@pytest.mark.parametrize("name", ["mlp_8", "mlp_16"])
def test_a_warp_is_together_before_it_says_what_all_its_lanes_did(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """The emulator's lanes go in step: it cannot tell. Of lines read, and of rows stored."""
    together = ("WARPSYNC", "BRA.DIV")
    names = [x.name for x in disassemble(kernels[name], tmp_path)]
    for says, does in (("SYNCS.ARRIVE.TRANS64.A1T0", "LDS"), ("REDG.", "STG")):
        places = [i for i, x in enumerate(names) if x.startswith(says)]
        assert places
        for place in places:
            before = [x for x in names[:place] if x.startswith((does, *together))]
            assert before[-1].startswith(together)


@needs_nvdisasm
@pytest.mark.parametrize("name", ["mlp_8", "mlp_16"])
def test_a_tile_takes_no_more_than_memory(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    said, instructions = facts(kernels[name]), disassemble(kernels[name], tmp_path)
    tiles = said["k_tiles"] * said["block_rows"] // 64
    # A warp copies four lines of 64 k at once, and its first lane the weights of each row tile.
    loads = said["tokens"] // 4 * said["k_tiles"] + said["block_rows"] // 64
    for width in {said["tokens"], said["narrow_tokens"]}:
        product = "HMMA.16816.F32.BF16"
        of_tile = issued_for_a_tile(instructions, product, 4 * width // 8, tiles, said, loads)
        print(f"{name}: {of_tile[0]:.0f} + {of_tile[1]:.0f} instructions a tile of {width}")
        assert sum(of_tile) <= BUDGET["decode_8"]


@needs_ptxas
@pytest.mark.parametrize(("name", "registers"), [("mlp_8", 64), ("mlp_16", 96)])
def test_the_assembler_has_nothing_to_say(
    kernels: dict[str, str], name: str, registers: int, tmp_path: Path
) -> None:
    """As many registers as let all blocks of a launch be there at once, which wait for each other."""
    report, _ = assemble(kernels[name], tmp_path)
    assert "warning" not in report.lower(), report
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report)
    found = re.search(r"Used (\d+) registers", report)
    assert found, report
    assert int(found[1]) <= registers
