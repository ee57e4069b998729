"""Calls as text that no model can write: how they reach MAX's tool parser, which is given text alone.

A call is ``CALL name ARGUMENTS arguments END``, its three marks being lone UTF-16 surrogates: a Python string can hold
them, UTF-8 cannot, so no token's bytes decode to one. A model that spells ``<|channel|>`` or anything else in ordinary
tokens forges nothing. Nothing here imports MAX.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpt_oss_mxfp4.endpoint.turn import Piece

CALL = "\ud800"
ARGUMENTS = "\ud801"
END = "\ud802"

_MARKS = re.compile(f"([{CALL}{ARGUMENTS}{END}])")


def write_call(piece: Piece) -> str:
    """Writes a piece of a call.

    Args:
        piece: of kind CALL.
    """
    begin = "" if piece.tool is None else f"{CALL}{piece.tool}{ARGUMENTS}"
    return f"{begin}{piece.text}{END if piece.ended else ''}"


@dataclass(frozen=True)
class Read:
    """What a piece of text holds: of the answer where index is None, else of a call.

    Args:
        text: of the answer, or arguments; empty where a call begins or ends.
        index: which call of the turn it is.
        name: the tool's, where a call begins.
    """

    text: str
    index: int | None = None
    name: str | None = None


class CallReader:
    """Reads what :func:`write_call` wrote amid an answer's text; how it is cut into pieces changes nothing."""

    def __init__(self) -> None:
        self._index = -1
        self._name: str | None = None  # so far, of the call whose name is being read
        self._in_call = False
        self._arguments = False  # whether the call that is being read has any

    def add(self, text: str) -> list[Read]:
        """Takes the next piece."""
        found: list[Read] = []
        for part in _MARKS.split(text):
            if part:
                found += self._take(part)
        return found

    def _take(self, part: str) -> list[Read]:
        if part == CALL:
            self._index, self._name = self._index + 1, ""
            self._in_call, self._arguments = True, False
        elif part == ARGUMENTS:
            name, self._name = self._name, None
            return [Read("", self._index, name)]
        elif part == END:
            self._in_call = False
            if not self._arguments:  # a call must have some JSON, which clients parse
                return [Read("{}", self._index)]
        elif self._name is not None:
            self._name += part
        elif self._in_call:
            self._arguments = True
            return [Read(part, self._index)]
        else:
            return [Read(part)]
        return []
