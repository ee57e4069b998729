"""What is told on standard error while a command runs."""

from __future__ import annotations

import io
import re

import pytest

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
    with (progress := Progress(stream)).step("compiling"):
        progress.note("no space")
    assert "\r\x1b[Kno space\n" in stream.getvalue()
    pipe = io.StringIO()
    Progress(pipe).note("no space")
    assert pipe.getvalue() == "no space\n"
