"""What a command is doing and for how long: one line that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

REDRAW_SECONDS = 0.5

_CLEAR = "\r\x1b[K"


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

    def redraw(self, text: str) -> None:
        """Puts a line in place of the one that was redrawn before, on a terminal; nothing elsewhere."""
        if self._live:
            # One column short: a line that wraps cannot be redrawn.
            self._write(f"{_CLEAR}{text[: shutil.get_terminal_size().columns - 1]}")

    @contextmanager
    def step(self, text: str, hint: str = "") -> Iterator[None]:
        """Tells that a step runs and, at its end, how long it took.

        Args:
            text: what is being done.
            hint: how long that may take; shown while it runs.
        """
        begin = time.monotonic()
        running = f"{text} ({hint})" if hint else text
        done = threading.Event()
        ticker = threading.Thread(target=self._redraw, args=(running, begin, done), daemon=True)
        if self._live:
            ticker.start()
        else:
            self._write(f"{running} ...\n")
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
                self._write(f"{text}: {time.monotonic() - begin:.1f} s\n")

    def _redraw(self, text: str, begin: float, done: threading.Event) -> None:
        while True:
            self.redraw(f"{text} ... {time.monotonic() - begin:.0f} s")
            if done.wait(REDRAW_SECONDS):
                return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
