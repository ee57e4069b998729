"""Bytes done, their rate, the time left."""

from __future__ import annotations

import io
import re

import pytest

from gpt_oss_mxfp4 import progress_bar
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.progress_bar import ProgressBar, size
from tests.gpt_oss_mxfp4.test_progress import Terminal


def test_the_line_has_share_rate_and_time_left() -> None:
    bar = ProgressBar(Progress(io.StringIO()), "writing x", 14_000_000_000, done=2_000_000_000)
    bar.advance(5_000_000_000)
    assert bar.line(10.0) == (
        "writing x [############............]  50% of 14.0 GB, 500.0 MB/s, 14 s left"
    )


def test_nothing_to_do_is_done() -> None:
    assert ProgressBar(Progress(io.StringIO()), "x", 0).line(0.0) == (
        "x [########################] 100% of 0.0 kB, 0.0 kB/s"
    )


def test_a_pipe_gets_a_line_at_the_beginning_and_one_at_the_end() -> None:
    stream = io.StringIO()
    with ProgressBar(Progress(stream), "writing x", 3_000_000, done=1_000_000) as bar:
        bar.advance(2_000_000)
    first, last = stream.getvalue().splitlines()
    assert first == "writing x: 3.0 MB, 1.0 MB of them by an earlier run ..."
    assert re.fullmatch(r"writing x: \d+\.\d s, \d+\.\d [GMk]B/s", last)


def test_a_terminal_s_line_is_redrawn_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "REDRAW_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with ProgressBar(Progress(stream), "writing x", 1000) as bar:
        bar.advance(500)
    assert "\r\x1b[Kwriting x [############......\r\x1b[K" in stream.getvalue()


def test_a_step_that_fails_is_not_called_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="boom"), ProgressBar(Progress(stream), "writing x", 1000):
        raise ValueError("boom")
    assert stream.getvalue() == "writing x: 1.0 kB ...\n"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(13_760_000_000, "13.8 GB"), (999_999, "1000.0 kB"), (1_000_000, "1.0 MB"), (0, "0.0 kB")],
)
def test_sizes_are_told_in_the_unit_that_fits(nbytes: int, text: str) -> None:
    assert size(nbytes) == text
