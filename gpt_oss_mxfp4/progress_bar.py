"""How much of many bytes is done, how fast, and how long the rest will take: one line that is redrawn on a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from gpt_oss_mxfp4.progress import REDRAW_SECONDS, Progress

WIDTH = 24
"""Characters of the bar itself."""


def size(nbytes: float) -> str:
    """A number of bytes as it is told: ``13.8 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes / 1e3:.1f} kB"


class ProgressBar:
    """A step of which the bytes are known beforehand.

    Args:
        progress: of the command.
        text: what is being done.
        total: bytes to do in all.
        done: bytes that an earlier run has done.
    """

    def __init__(self, progress: Progress, text: str, total: int, done: int = 0) -> None:
        self._progress, self._text, self._total = progress, text, total
        self._done = self._before = done
        self._begin = self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        """Says what begins."""
        before = f", {size(self._before)} of them by an earlier run" if self._before else ""
        self._progress.note(f"{self._text}: {size(self._total)}{before} ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        """Says how long it took, unless it failed."""
        self._progress.redraw("")
        if kind is None:
            seconds = time.monotonic() - self._begin
            self._progress.note(f"{self._text}: {seconds:.1f} s, {size(self._rate(seconds))}/s")

    def advance(self, nbytes: int) -> None:
        """Tells that so many bytes more are done."""
        self._done += nbytes
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._progress.redraw(self.line(now - self._begin))

    def line(self, seconds: float) -> str:
        """The line that is redrawn.

        Args:
            seconds: since the step began.
        """
        share = self._done / self._total if self._total else 1.0
        bar = "#" * int(share * WIDTH)
        rate = self._rate(seconds)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate else ""
        return f"{self._text} [{bar:.<{WIDTH}}] {share:4.0%} of {size(self._total)}, {size(rate)}/s{left}"

    def _rate(self, seconds: float) -> float:
        return (self._done - self._before) / seconds if seconds > 0 else 0.0
