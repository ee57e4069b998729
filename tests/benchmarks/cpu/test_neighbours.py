"""What others take of the machine, from counters that are given."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.cpu.neighbours import (
    Processors,
    others_share,
    read_processors,
    wait_until_idle,
)


def test_a_share_leaves_out_what_ones_own_child_took() -> None:
    before, after = Processors(busy=10, all=100, own=5), Processors(busy=24, all=120, own=15)
    assert others_share(before, after) == (14 - 10) / 20
    assert others_share(before, Processors(busy=12, all=120, own=15)) == 0
    assert others_share(None, after) is None


@pytest.mark.parametrize(
    ("shares", "patience", "idle", "seconds"),
    [
        ([0.05] * 9, 9, True, 3),
        ([0.9, 0.05, 0.05, 0.9, 0.05, 0.05, 0.05, 0.9], 9, True, 7),
        ([0.9] * 9, 5, False, 5),
        ([0.05] * 9, 0, False, 0),
    ],
)
def test_idle_is_little_for_three_seconds(
    shares: list[float], patience: int, idle: bool, seconds: int
) -> None:
    readings = [Processors(0, 0, 0)]
    for share in shares:
        readings.append(Processors(readings[-1].busy + 2 * share, readings[-1].all + 2, 0))
    slept: list[float] = []
    got = wait_until_idle(patience, lambda: readings[len(slept)], slept.append)
    assert (got, sum(slept)) == (idle, seconds)


def test_nothing_is_waited_for_where_nothing_is_known() -> None:
    slept: list[float] = []
    assert not wait_until_idle(60, lambda: None, slept.append)
    assert slept == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_child_is_counted_as_ones_own() -> None:
    before = read_processors()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    after = read_processors()
    assert before is not None
    assert after is not None
    assert after.own - before.own > 0.05
    assert after.all > before.all
    assert after.busy >= before.busy
