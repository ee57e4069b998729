"""Calls as text that no model can write: how they reach MAX's tool parser, which is given text alone.

A call is ``CALL name ARGUMENTS arguments END``, its three marks being lone UTF-16 surrogates: a Python string can hold
them, UTF-8 cannot, so no token's bytes decode to one. A model that spells ``<|channel|>`` or anything else in ordinary
tokens forges nothing. Nothing here imports MAX.
"""

from __future__ import annotations

import re

from gpt_oss_mxfp4.endpoint.turn import Piece

CALL = "\ud800"
ARGUMENTS = "\ud801"
END = "\ud802"

MARKS = re.compile(f"([{CALL}{ARGUMENTS}{END}])")
"""Takes a text apart at its marks, which stay."""


def write_call(piece: Piece) -> str:
    """Writes a piece of a call.

    Args:
        piece: of kind CALL.
    """
    begin = "" if piece.tool is None else f"{CALL}{piece.tool}{ARGUMENTS}"
    return f"{begin}{piece.text}{END if piece.ended else ''}"
