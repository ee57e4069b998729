"""The picture of a run: means of its steps, as a PNG."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from demo.loss_curve import INTERVAL, draw_loss_curve, means
from demo.training import Step


def steps(count: int) -> list[Step]:
    return [
        Step(number, loss=10.0 / number, accuracy=1 - 1 / number) for number in range(1, count + 1)
    ]


def test_a_point_is_the_mean_of_its_interval_and_the_last_may_be_short() -> None:
    run = steps(2 * INTERVAL + 3)
    points = means(run)
    assert [point.number for point in points] == [INTERVAL, 2 * INTERVAL, 2 * INTERVAL + 3]
    for point, group in zip(
        points, (run[:INTERVAL], run[INTERVAL : 2 * INTERVAL], run[-3:]), strict=True
    ):
        assert point.loss == pytest.approx(sum(step.loss for step in group) / len(group))
        assert point.accuracy == pytest.approx(sum(step.accuracy for step in group) / len(group))


@pytest.mark.parametrize("count", [0, 1, INTERVAL])
def test_a_short_run_is_one_point_or_none(count: int) -> None:
    assert len(means(steps(count))) == min(count, 1)


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_loss_curve(means(steps(100)), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")
