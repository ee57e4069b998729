"""Terminal: whether standard output is one, and text that does nothing to it."""

from __future__ import annotations

import re
import sys

# All that moves a terminal's cursor, colours it, or has it answer: a model may say it, but not do it.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shows_output() -> bool:
    """Whether a terminal shows standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def harmless(text: str) -> str:
    """Text for a terminal: control characters, but for line ends and tabs, as pictures of themselves."""
    return _CONTROLS.sub(_picture, text)


def _picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
