"""The compiled attention kernel for Hopper against NumPy, in the emulator or on a GPU."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.custom_ops.mxfp4.assembler import assemble, disassemble, needs_nvdisasm, needs_ptxas
from tests.custom_ops.mxfp4.launch import launch, needs_emulator
from tests.custom_ops.mxfp4.ptx import SM90_ATTENTION, emit, facts
from tests.custom_ops.mxfp4.sass import assert_nothing_early
from tests.measure import relative_error
from tests.ptx_emulator.memory import MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16
from tests.reference.attention import attention

HEAD_DIM = 64
PAGE = 32
LAYERS, LAYER = 2, 1
NAN = 0x7FC0


@pytest.fixture(scope="module")
def kernels() -> dict[str, str]:
    return emit(SM90_ATTENTION)


@pytest.fixture(params=[8, 16])
def ptx(kernels: dict[str, str], request: pytest.FixtureRequest) -> str:
    """The kernel with so many warps to a block."""
    return kernels[f"attention_{request.param}"]


class Case:
    """A ragged batch with its cache: pages in no order, what no sequence wrote is NaN, and so is the output.

    Args:
        lengths: of each sequence, its new tokens included.
        rows: of each sequence, its new tokens.
        rng: what is random.
        group: query heads of a key-value head.
        kv_heads: key-value heads.
    """

    def __init__(
        self,
        lengths: list[int],
        rows: list[int],
        rng: np.random.Generator,
        *,
        group: int = 8,
        kv_heads: int = 2,
    ) -> None:
        self.lengths, self.rows, self.group = lengths, rows, group
        width = max(-(-length // PAGE) for length in lengths) + 1
        count = sum(-(-length // PAGE) for length in lengths) + 3
        self.pages = np.full((count, 2, LAYERS, PAGE, kv_heads, HEAD_DIM), NAN, np.uint16)
        self.table = np.full((len(lengths), width), 2**32 - 1, np.uint32)
        self.q = bfloat16(2 * rng.standard_normal((sum(rows), kv_heads * group, HEAD_DIM)))
        self.sinks = bfloat16(rng.standard_normal(kv_heads * group))
        self.sequences = []
        free = rng.permutation(count).tolist()
        for number, length in enumerate(lengths):
            both = bfloat16(rng.standard_normal((2, length, kv_heads, HEAD_DIM)))
            self.sequences.append(decode_bfloat16(both))
            for begin in range(0, length, PAGE):
                page = self.table[number, begin // PAGE] = free.pop()
                part = both[:, begin : begin + PAGE]
                self.pages[page, :, LAYER, : part.shape[1]] = part

    def run(
        self, ptx: str, window: int | None = None, parts: int = 1, seed: int = 0
    ) -> NDArray[np.float64]:
        """Gives what the kernel writes."""
        output = np.full(self.q.shape, NAN, np.uint16)
        kv_heads = self.pages.shape[-2]
        of_layer = PAGE * kv_heads * HEAD_DIM
        flat = self.pages.reshape(-1)
        launch(
            ptx,
            [
                output,
                self.q,
                np.concatenate([[0], np.cumsum(self.rows)]).astype(np.uint32),
                self.sinks,
                flat[LAYER * of_layer :],
                flat[(LAYERS + LAYER) * of_layer :],
                (np.array(self.lengths) - self.rows).astype(np.uint32),
                self.table,
                2 * LAYERS * of_layer,
                len(self.pages),
                PAGE.bit_length() - 1,
                self.table.shape[1],
                self.group,
                np.float32(math.log2(math.e) / math.sqrt(HEAD_DIM)),
                window or 0,
            ],
            grid=(parts, kv_heads, len(self.lengths)),
            cluster=parts,
            unfinished=range(8),
            seed=seed,
        )
        return decode_bfloat16(output)

    def run_in_several_orders(
        self, ptx: str, parts: int, count: int = 20
    ) -> list[NDArray[np.float64]]:
        """Gives what the kernel writes each time that warps take turns in another order."""
        return [self.run(ptx, parts=parts, seed=seed) for seed in range(count)]

    def want(self, window: int | None = None) -> NDArray[np.float64]:
        """Gives what it should."""
        parts, first = [], 0
        for (keys, values), length, rows in zip(
            self.sequences, self.lengths, self.rows, strict=True
        ):
            q = np.zeros((length, *self.q.shape[1:]))
            q[length - rows :] = decode_bfloat16(self.q[first : first + rows])
            whole = attention(q, keys, values, decode_bfloat16(self.sinks), window)
            parts.append(whole[length - rows :])
            first += rows
        return np.concatenate(parts)


def bfloat16(x: Any) -> NDArray[np.uint16]:
    return encode_bfloat16(np.asarray(x)).astype(np.uint16)


def assert_close(got: NDArray[np.float64], want: NDArray[np.float64]) -> None:
    """Weights and outputs are rounded to bfloat16."""
    error = relative_error(got, want)
    assert error.maximum <= 2**-5, error
    assert error.rms <= 2**-8, error


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [([1], 1), ([1], 8), ([16], 2), ([17, 1, 300], 1), ([1, 300], 8), ([129, 640], 4)],
)
def test_one_token_each(ptx: str, lengths: list[int], parts: int, rng: np.random.Generator) -> None:
    """Fewer tiles than warps and more, whole tiles and the first key of one."""
    case = Case(lengths, [1] * len(lengths), rng)
    assert_close(case.run(ptx, parts=parts), case.want())


@pytest.mark.parametrize(
    ("window", "parts"), [(1, 1), (16, 2), (100, 1), (128, 2), (129, 1), (1000, 1)]
)
def test_a_window(
    kernels: dict[str, str], window: int, parts: int, rng: np.random.Generator
) -> None:
    """Pages before it may be anybody's: their places in the table are none."""
    case = Case([5, 128, 145, 333], [1] * 4, rng)
    for number, length in enumerate(case.lengths):
        case.table[number, : max(length - window, 0) // PAGE] = 2**31
    assert_close(case.run(kernels["attention_8"], window, parts), case.want(window))


@pytest.mark.parametrize(("group", "kv_heads"), [(1, 3), (3, 2), (5, 1)])
def test_other_heads(
    kernels: dict[str, str], group: int, kv_heads: int, rng: np.random.Generator
) -> None:
    """Heads that are no power of two, fewer than a product's columns and than the cluster's blocks."""
    case = Case([50, 200], [1, 1], rng, group=group, kv_heads=kv_heads)
    assert_close(case.run(kernels["attention_8"], parts=4), case.want())


def test_several_tokens_each(ptx: str, rng: np.random.Generator) -> None:
    case = Case([40, 3, 70], [3, 0, 4], rng)
    assert_close(case.run(ptx, 20, parts=2), case.want(20))


def test_large_scores_and_a_sink_that_takes_all(ptx: str, rng: np.random.Generator) -> None:
    """Exponentials of the largest, whichever warp has it; exp(300) is no float32."""
    case = Case([300], [1], rng)
    case.q = bfloat16(200 * rng.standard_normal(case.q.shape))
    assert_close(case.run(ptx, parts=2), case.want())
    case.sinks[:] = bfloat16(30000)
    assert (case.run(ptx, parts=2) == 0).all()


def test_the_order_of_warps_changes_nothing(ptx: str, rng: np.random.Generator) -> None:
    case = Case([300], [1], rng)
    first, *others = case.run_in_several_orders(ptx, parts=2, count=3)
    for other in others:
        np.testing.assert_array_equal(first, other)


@needs_emulator
def test_what_is_not_there_is_not_read(kernels: dict[str, str], rng: np.random.Generator) -> None:
    """A table with pages beyond the cache, and a sequence beyond its pages, give something; nothing else is read."""
    case = Case([100], [1], rng)
    case.table[:] = 2**32 - 1
    case.run(kernels["attention_8"], parts=2)
    case.lengths = [10**6]
    case.run(kernels["attention_8"], parts=2)


@needs_emulator
def test_a_missing_meeting_is_seen(kernels: dict[str, str], rng: np.random.Generator) -> None:
    """Of a block's warps, and of the cluster before it reads and after."""
    case = Case([300], [1], rng)
    of_cluster = r"barrier\.cluster\.arrive\.aligned;\s+barrier\.cluster\.wait\.aligned;"
    ptx = kernels["attention_8"]
    meetings = list(re.finditer(rf"bar\.sync\s+0;|{of_cluster}", ptx))
    assert len(meetings) == 3
    for found in meetings:
        without = ptx[: found.start()] + ptx[found.end() :]
        with pytest.raises(MemoryAccessError, match=r"read before it is written|has ended"):
            case.run_in_several_orders(without, parts=8)


def test_parts(kernels: dict[str, str]) -> None:
    """A cluster of eight where there are few sequences, a block each where they fill the card or a window is short.

    And more warps where clusters are sure to fit beside each other, as an H200 has it (NOTES F87).
    """
    chosen = facts(kernels["attention_8"])
    assert [chosen[f"parts_{count}"] for count in (1, 2, 4, 8, 16, 32, 64)] == [8, 8, 4, 2, 2, 1, 1]
    assert {chosen[f"parts_window_{count}"] for count in (1, 2, 4, 8, 16, 32, 64)} == {1}
    warps = [chosen[f"warps_{count}"] for count in (1, 2, 4, 8, 16, 32, 64)]
    assert warps == [16, 8, 8, 16, 8, 8, 8]
    assert {chosen[f"warps_window_{count}"] for count in (1, 2, 4, 8, 16, 32, 64)} == {8}


@needs_nvdisasm
def test_nothing_is_read_or_written_before_the_wait_for_the_kernel_before(
    ptx: str, tmp_path: Path
) -> None:
    assert_nothing_early(disassemble(ptx, tmp_path))


@needs_emulator
def test_a_missing_wait_for_the_kernel_before_is_seen(ptx: str, rng: np.random.Generator) -> None:
    case = Case([20], [1], rng)
    case.run(ptx)
    with pytest.raises(RuntimeError, match="before the wait for the kernel before"):
        case.run(ptx.replace("griddepcontrol.wait;", ""))


@needs_ptxas
def test_the_assembler_has_nothing_to_say(ptx: str, tmp_path: Path) -> None:
    """Two blocks of 256 threads to a multiprocessor, or one of 512."""
    report, _ = assemble(ptx, tmp_path)
    assert "warning" not in report.lower(), report
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report)
    found = re.search(r"Used (\d+) registers", report)
    assert found, report
    assert int(found[1]) <= 128
