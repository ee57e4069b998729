"""StopStrings: ends an answer before the first of the strings that a client names."""

from __future__ import annotations

from collections.abc import Sequence

MAX_STRINGS = 16
"""Of a request; OpenAI allows 4. Each is looked for in every piece of a text, while other clients wait."""


class StopStrings:
    """Looks for strings in a text that comes in pieces. No piece is given out that may be the start of one.

    Args:
        strings: what ends the text; it is not part of it. An empty one, which a client may send, ends nothing.
    """

    stopped: bool
    """Whether one of the strings came."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """Takes the next piece and gives the text that no string can begin in."""
        text, self._held = self._held + text, ""
        places = [place for s in self._strings if (place := text.find(s)) >= 0]
        if places:
            self.stopped = True
            return text[: min(places)]
        held = max((_overlap(text, string) for string in self._strings), default=0)
        end = len(text) - held
        self._held = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Gives what was held back, where the text ends or something else comes between."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of a text that a string begins with, short of the whole string."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)
