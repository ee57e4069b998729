"""What is told on standard error while a command runs."""

from __future__ import annotations

import io
import re

import pytest

from gpt_oss_mxfp4 import progress
from gpt_oss_mxfp4.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    with Progress(stream).step("compiling", "a minute"):
        pass
    assert re.fullmatch(r"compiling \(a minute\) \.\.\.\ncompiling: 0\.0 s\n", stream.getvalue())


def test_a_terminal_gets_one_line_that_is_redrawn() -> None:
    stream = Terminal()
    with Progress(stream).step("compiling"):
        pass
    assert stream.getvalue() == "\r\x1b[Kcompiling ... 0 s\r\x1b[Kcompiling: 0.0 s\n"


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    with Progress(stream).step("x" * 50):
        pass
    assert f"\r\x1b[K{'x' * 19}\r\x1b[K" in stream.getvalue()


def test_a_step_that_fails_is_not_called_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="boom"), Progress(stream).step("compiling"):
        raise ValueError("boom")
    assert stream.getvalue() == "compiling ...\n"


def test_a_note_takes_the_place_of_a_line_that_is_redrawn() -> None:
    stream = Terminal()
    with (told := Progress(stream)).step("compiling"):
        told.note("no space")
    assert "\r\x1b[Kno space\n" in stream.getvalue()
    pipe = io.StringIO()
    Progress(pipe).note("no space")
    assert pipe.getvalue() == "no space\n"


def test_a_bar_tells_a_pipe_what_comes_and_what_came() -> None:
    stream = io.StringIO()
    with Progress(stream).bar("reading", 5_000_000) as advance:
        advance(2_000_000)
        advance(3_000_000)
    assert re.fullmatch(
        r"reading: 5\.00 MB \.\.\.\nreading: 5\.00 MB in 0\.\d s, [\d.]+ [kMGT]B/s\n",
        stream.getvalue(),
    )


def test_a_bar_is_redrawn_on_a_terminal_with_share_rate_and_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("gpt_oss_mxfp4.progress.time.monotonic", lambda: next(clock))
    bar = progress._Bar("reading", 4_000_000)
    bar.add(1_000_000)
    assert bar.line(79) == (
        "reading [######.................]  25%  1.00 MB of 4.00 MB  250 kB/s  12 s left"
    )


def test_what_an_earlier_run_has_done_counts_but_not_for_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("gpt_oss_mxfp4.progress.time.monotonic", lambda: next(clock))
    bar = progress._Bar("writing", 4_000_000, 2_000_000)
    bar.add(1_000_000)
    assert bar.line(79).endswith("]  75%  3.00 MB of 4.00 MB  250 kB/s  4 s left")
    stream = io.StringIO()
    monkeypatch.undo()
    with Progress(stream).bar("writing", 3_000_000, 1_000_000) as advance:
        advance(2_000_000)
    first, last = stream.getvalue().splitlines()
    assert first == "writing: 3.00 MB, 1.00 MB of them by an earlier run ..."
    assert last.startswith("writing: 2.00 MB in ")


@pytest.mark.parametrize("columns", range(1, 120))
def test_a_bar_fits_its_terminal(columns: int) -> None:
    bar = progress._Bar("reading", 4_000_000)
    bar.add(1_000_000)
    assert len(bar.line(columns)) <= columns


def test_a_bar_of_nothing_is_full_and_one_that_goes_back_is_not_below_empty() -> None:
    assert "100%" in progress._Bar("reading", 0).line(100)
    bar = progress._Bar("reading", 100)
    bar.add(-50)
    assert "  0%" in bar.line(100)


def test_a_bar_that_fails_is_not_called_done() -> None:
    stream = Terminal()
    with pytest.raises(ValueError, match="boom"), Progress(stream).bar("reading", 10):
        raise ValueError("boom")
    assert stream.getvalue().endswith("\r\x1b[K")
    assert " in " not in stream.getvalue()
