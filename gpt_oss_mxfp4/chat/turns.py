"""TurnReader: what the user says, turn by turn, typed at a terminal or read from a pipe."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import interrupts_raised

FIRST_PROMPT, NEXT_PROMPT = "> ", ". "

QUOTES = '"""'
"""A line of these begins a turn of several lines, another ends it."""


class TurnReader:
    """Reads turns. One is a line; a backslash at its end, or lines of quotes around them, make several lines one turn.

    Args:
        stream: standard input.
        interactive: whether somebody types: then there is a prompt, with a history where Python has readline.
    """

    def __init__(self, stream: TextIO, *, interactive: bool) -> None:
        self._stream = stream
        self._interactive = interactive
        reconfigure = getattr(stream, "reconfigure", None)
        if (
            reconfigure
        ):  # what is no UTF-8 is told below, instead of wherever the locale has it fail
            reconfigure(encoding="utf-8", errors="surrogateescape")
        if interactive:
            with contextlib.suppress(ImportError):
                import readline

                readline.set_auto_history(True)  # kept in memory: what was asked is on no disk

    def read(self) -> str | None:
        """Reads the next turn that is not empty, or gives None at the end.

        Raises:
            Refused: it is not UTF-8.
        """
        while True:
            try:
                turn = self._turn()
            except KeyboardInterrupt:  # what was typed is given up
                self._write("\n")
                continue
            except EOFError:
                if self._interactive:
                    self._write("\n")
                return None
            try:
                turn.encode()
            except UnicodeEncodeError:
                raise Refused("standard input: must be valid UTF-8") from None
            if turn.strip():
                return turn

    def _turn(self) -> str:
        lines = [self._line(FIRST_PROMPT)]
        if lines[0].strip() == QUOTES:
            lines = []
            with contextlib.suppress(EOFError):
                while (line := self._line(NEXT_PROMPT)).strip() != QUOTES:
                    lines.append(line)
            return "\n".join(lines)
        with contextlib.suppress(EOFError):
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(self._line(NEXT_PROMPT))
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        if self._interactive:
            with interrupts_raised():
                return input(prompt)
        line = self._stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
