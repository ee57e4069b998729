"""Screen: what of an answer is shown, and how: on a terminal reasoning is dim, elsewhere it stands under a title."""

from __future__ import annotations

from collections.abc import Callable

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.terminal import harmless

DIM, PLAIN = "\x1b[2m", "\x1b[0m"

TITLES = {Kind.REASONING: "[analysis]\n", Kind.ANSWER: "[final]\n"}
"""As ``generate --show-reasoning`` has them."""


class Screen:
    """Shows one answer after the other.

    Args:
        write: prints a piece of text.
        terminal: whether a terminal shows it.
        colour: whether that may be told to show text dim.
    """

    def __init__(self, write: Write, *, terminal: bool, colour: bool) -> None:
        self._write = write
        self._clean: Callable[[str], str] = harmless if terminal else str
        self._terminal = terminal
        self._colour = colour
        self._shown: Kind | None = None  # kind of what was shown last of this answer

    def show(self, piece: Piece, *, reasoning: bool) -> None:
        """Shows a piece of an answer.

        Args:
            piece: the next one, of no call.
            reasoning: whether reasoning is shown.
        """
        if piece.kind is Kind.REASONING and not reasoning:
            return
        dim = self._colour and piece.kind is Kind.REASONING
        if piece.kind is not self._shown:
            self._write("\n\n" if self._shown else "")
            self._write(TITLES[piece.kind] if reasoning and not self._colour else "")
            self._shown = piece.kind
        text = self._clean(piece.text)
        # Each piece by itself, so that a terminal is never left dim.
        self._write(f"{DIM}{text}{PLAIN}" if dim else text)

    def end(self) -> None:
        """Ends an answer's last line; on a terminal an empty one parts it from the next question."""
        if self._shown or not self._terminal:
            self._write("\n\n" if self._terminal else "\n")
        self._shown = None
