"""SpecialText: keeps a client's text from being read as special tokens: ``<|start|>system`` said by a user is text.

A chat template puts special tokens and clients' texts into one string, which is tokenized as a whole. So a mark is put
before each character of whatever looks like a special token in what a client says, before it is rendered, where no
special token may begin behind one; the rendered string falls into special tokens, which are the template's, and text,
which loses the marks again. Nothing here imports MAX.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from gpt_oss_mxfp4.detokenize import INCOMPLETE

MARK = "\ud800"
"""A lone surrogate: a string can hold it, and no text that can be tokenized."""


class SpecialText:
    """Hides special tokens in text.

    Args:
        tokens: the special tokens, as text; maybe none.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        longest_first = sorted(tokens, key=len, reverse=True)
        any_of = "|".join(map(re.escape, longest_first)) or "(?!)"  # which matches nowhere
        self._tokens = re.compile(f"(?<!{MARK})({any_of})")

    def hide(self, value: Any) -> Any:
        """Gives a value with special tokens hidden in every text that it holds.

        Args:
            value: text, number, list or dict of such, as JSON has them; a dict's keys are texts too.
        """
        if isinstance(value, str):
            value = value.replace(MARK, INCOMPLETE)
            return self._tokens.sub(lambda match: MARK.join(("", *match[0])), value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def split(self, rendered: str) -> list[tuple[str, bool]]:
        """Gives a rendered string's special tokens and the texts between them, each with whether it is a token.

        Args:
            rendered: a template's text, in which what clients say is hidden.
        """
        parts = enumerate(self._tokens.split(rendered))
        return [(reveal(part), i % 2 == 1) for i, part in parts if part]


def reveal(text: str) -> str:
    """Takes the marks out of a text."""
    return text.replace(MARK, "")
