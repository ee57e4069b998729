"""Token ids to text as they come: no character is printed before all of its bytes are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

INCOMPLETE = "\ufffd"
"""What a tokenizer decodes bytes to that are not UTF-8, the first bytes of a character among them."""


class Decoder(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Gives the text of token ids."""
        ...


class StreamingDetokenizer:
    """Decodes one sequence, piece by piece; the pieces joined are the text of the whole.

    A character may be split over tokens, and a token may decode differently behind another one (a leading space
    that is dropped at the start of a text). So each piece is what new tokens add to the text of the few before.

    Args:
        tokenizer: decodes; special tokens are skipped.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # first token that is decoded again, for what follows it
        self._printed = 0  # first token whose text has not been given out

    def add(self, ids: Sequence[int]) -> str:
        """Takes the next tokens and gives the text they complete, often empty."""
        self._ids += ids
        text = self._new_text()
        if not text or text.endswith(INCOMPLETE):
            return ""
        self._context, self._printed = self._printed, len(self._ids)
        return text

    def finish(self) -> str:
        """Gives what is left at the end, without the bytes of a character that the last token cut off.

        What comes after is another text.
        """
        text = self._new_text()
        self._context = self._printed = len(self._ids)
        return text.rstrip(INCOMPLETE)

    def _new_text(self) -> str:
        before = self._decode(self._ids[self._context : self._printed])
        return self._decode(self._ids[self._context :])[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
