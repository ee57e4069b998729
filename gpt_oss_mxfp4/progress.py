"""What a command is doing and for how long: one line that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from gpt_oss_mxfp4.quantity import bytes_text, duration_text

REDRAW_SECONDS = 0.5

_CLEAR = "\r\x1b[K"


class _Bar:
    """Bytes done of a total, since when; those that an earlier run has done count, but not for the rate."""

    def __init__(self, text: str, total_bytes: int, done_bytes: int = 0) -> None:
        self._text = text
        self._total = total_bytes
        self._done = self._before = done_bytes
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """Counts bytes as done."""
        with self._lock:
            self._done += nbytes

    def line(self, columns: int) -> str:
        """The state in at most so many characters, the bar as long as there is room for."""
        share = min(max(self._done / self._total, 0.0), 1.0) if self._total else 1.0
        told = f"{share:4.0%}  {bytes_text(self._done)} of {bytes_text(self._total)}"
        rate = self._rate()
        if rate > 0:
            rest = (self._total - self._done) / rate
            told += f"  {bytes_text(rate)}/s  {duration_text(max(rest, 0))} left"
        room = min(columns - len(self._text) - len(told) - 4, 30)
        if room < 8:
            return f"{self._text} {told}"[:columns]
        filled = round(room * share)
        return f"{self._text} [{'#' * filled}{'.' * (room - filled)}] {told}"

    def summary(self) -> str:
        """What was done, in how long."""
        seconds = time.monotonic() - self._begin
        done = bytes_text(self._done - self._before)
        return f"{self._text}: {done} in {seconds:.1f} s, {bytes_text(self._rate())}/s"

    def _rate(self) -> float:
        return (self._done - self._before) / max(time.monotonic() - self._begin, 1e-3)


class Progress:
    """Steps of a command, told on one stream.

    Args:
        stream: usually standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()

    def note(self, text: str) -> None:
        """Prints a line of its own, in place of a step's that is being redrawn."""
        self._write(f"{_CLEAR if self._live else ''}{text}\n")

    @contextmanager
    def step(self, text: str, hint: str = "") -> Iterator[None]:
        """Tells that a step runs and, at its end, how long it took.

        Args:
            text: what is being done.
            hint: how long that may take; shown while it runs.
        """
        begin = time.monotonic()
        running = f"{text} ({hint})" if hint else text
        with self._running(
            f"{running} ...",
            lambda columns: f"{running} ... {time.monotonic() - begin:.0f} s"[:columns],
            lambda: f"{text}: {time.monotonic() - begin:.1f} s",
        ):
            yield

    @contextmanager
    def bar(
        self, text: str, total_bytes: int, done_bytes: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Tells how many bytes of a long step are done, how fast, and how long the rest may take.

        Args:
            text: what is being done.
            total_bytes: of the whole step.
            done_bytes: of them, what an earlier run has done.

        Yields:
            Counts bytes as done; threads may share it. Fewer than none may be counted, where work is done again.
        """
        bar = _Bar(text, total_bytes, done_bytes)
        before = f", {bytes_text(done_bytes)} of them by an earlier run" if done_bytes else ""
        with self._running(f"{text}: {bytes_text(total_bytes)}{before} ...", bar.line, bar.summary):
            yield bar.add

    @contextmanager
    def _running(
        self, first: str, line: Callable[[int], str], last: Callable[[], str]
    ) -> Iterator[None]:
        """Tells of what runs: a line that is redrawn on a terminal, ``first`` elsewhere, and ``last`` at its end.

        Args:
            first: the line.
            line: gives the line of the moment, in at most so many characters.
            last: gives the line.
        """
        done = threading.Event()
        ticker = threading.Thread(target=self._redraw, args=(line, done), daemon=True)
        if self._live:
            ticker.start()
        else:
            self._write(f"{first}\n")
        finished = False
        try:
            yield
            finished = True
        finally:
            done.set()
            if self._live:
                ticker.join()
                self._write(_CLEAR)
            if finished:
                self._write(f"{last()}\n")

    def _redraw(self, line: Callable[[int], str], done: threading.Event) -> None:
        while True:
            # One column short: a line that wraps cannot be redrawn.
            self._write(f"{_CLEAR}{line(shutil.get_terminal_size().columns - 1)}")
            if done.wait(REDRAW_SECONDS):
                return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
