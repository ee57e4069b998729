"""The list of experts and the walk over it: every output tile once, in its order, whatever the offsets say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tests.custom_ops.mxfp4.launch import launch
from tests.custom_ops.mxfp4.ptx import SM90_SCHEDULE, emit, facts

NOTHING = -7
"""What no kernel writes."""

Item = tuple[int, ...]


def expect(of: dict[str, int], offsets: Sequence[int], rows: int, n: int) -> list[Item]:
    """Gives the items there should be: by expert, rows of activations, weight rows; narrow tiles last, if so cut.

    Args:
        of: what the kernel's module says of its tiles.
        offsets: of the experts.
        rows: of them all.
        n: weight rows.
    """
    tiles: list[Item] = []
    narrow: list[Item] = []
    for expert, (first, end) in enumerate(pairwise(map(int, np.clip(offsets, 0, rows)))):
        left = max(0, end - first) % of["tokens"]
        between = end - (left if left <= of["narrow_last"] else 0)
        tiles += [(expert, row, between) for row in range(first, between, of["tokens"])]
        narrow += [(expert, between, end)] if between < end else []
    blocks = range(-(-n // (64 * of["row_tiles"])))
    items = [(*tile, block) for tile in tiles + narrow for block in blocks]
    return [(i, *item) for i, item in enumerate(items)]


def walk(ptx: str, offsets: Sequence[int], rows: int, n: int, grid: int) -> list[Item]:
    """Gives the items that the blocks of a launch write down."""
    room = (len(expect(facts(ptx), offsets, rows, n)) + 8, 5)
    items = np.full(room, NOTHING, np.int32)
    starts = np.array(offsets, np.int32)
    launch(ptx, [items, starts, len(offsets) - 1, rows, n], grid=(grid, 1, 1), threads=32)
    written = items[:, 0] != NOTHING
    return [tuple(map(int, item)) for item in items[written]]


@pytest.fixture(scope="module", params=["decode_8", "decode_8_in_tiles", "prefill_128"])
def ptx(request: pytest.FixtureRequest) -> str:
    """The walk alone, with tiles of eight rows by 64, and of 128 by 192, of which narrow ones come last."""
    return emit(SM90_SCHEDULE)[request.param]


def sums(counts: ArrayLike) -> list[int]:
    return [0, *map(int, np.cumsum(counts))]


@pytest.mark.parametrize(
    ("offsets", "rows", "n", "grid"),
    [
        pytest.param([0, 1, 1, 4, 20, 20], 20, 2880, 7, id="few"),
        pytest.param([0, 300, 300, 301, 429], 429, 2880, 5, id="many rows"),
        pytest.param(
            sums([64, 65, 128, 192, 0, 193, 5]), 647, 192, 5, id="half, full, and between"
        ),
        pytest.param([0, 0, 0, 9, 9], 9, 128, 3, id="empty first and last"),
        pytest.param([0, 0, 0], 0, 128, 3, id="no rows"),
        pytest.param([0, 64], 64, 192, 4, id="one expert"),
        pytest.param([0, 0, 64, 64], 64, 192, 4, id="all rows on one"),
        pytest.param([0, 9, 3, 16], 16, 128, 3, id="descending"),
        pytest.param([0, 400, 3, 600], 600, 64, 3, id="descending by whole tiles"),
        pytest.param([-5, 7, 2_000_000_000], 10, 64, 3, id="outside of the rows"),
        pytest.param(sums([e % 7 if e % 5 == 0 else 0 for e in range(61)]), 39, 192, 9, id="61"),
        pytest.param(sums([3] * 32), 96, 64, 5, id="a lane an expert"),
        pytest.param(sums([e % 2 for e in range(33)]), 16, 64, 5, id="a lane two experts"),
        pytest.param(sums([e % 3 for e in range(128)]), 127, 64, 5, id="a lane four experts"),
        pytest.param(sums([e % 3 for e in range(129)]), 129, 64, 5, id="a lane five experts"),
        pytest.param(sums([int(e % 40 == 0) for e in range(510)]), 13, 64, 2, id="most experts"),
        pytest.param(sums([1] * 510), 510, 64, 3, id="most experts, all with rows"),
    ],
)
def test_every_tile_once(ptx: str, offsets: list[int], rows: int, n: int, grid: int) -> None:
    assert walk(ptx, offsets, rows, n, grid) == expect(facts(ptx), offsets, rows, n)


def test_random_routings(ptx: str, rng: np.random.Generator) -> None:
    for _ in range(8):
        experts = int(rng.integers(1, 200))
        offsets = sums(rng.integers(0, 200, experts) * (rng.random(experts) < 0.2))
        n, grid = int(rng.integers(1, 400)), int(rng.integers(1, 6))
        want = expect(facts(ptx), offsets, offsets[-1], n)
        assert walk(ptx, offsets, offsets[-1], n, grid) == want
