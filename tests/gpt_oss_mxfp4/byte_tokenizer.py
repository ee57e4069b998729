"""A tokenizer in a few lines: every byte is a token, and so is each special token."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpt_oss_mxfp4.harmony import SPECIAL_TOKENS, STOP_TOKENS

BYTES = 256


class ByteTokenizer:
    """Stands in for a Hugging Face tokenizer.

    Args:
        special: its special tokens; by default harmony's and ``<|endoftext|>``.
    """

    def __init__(self, special: Sequence[str] = (*SPECIAL_TOKENS, *STOP_TOKENS)) -> None:
        self.special = list(dict.fromkeys(special))

    def get_added_vocab(self) -> dict[str, int]:
        return {token: BYTES + i for i, token in enumerate(self.special)}

    def encode(self, text: str) -> list[int]:
        ids = self.get_added_vocab()
        parts = re.split(f"({'|'.join(map(re.escape, self.special))})", text)
        return [i for part in parts for i in ([ids[part]] if part in ids else part.encode())]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(i for i in token_ids if i < BYTES).decode(errors="replace")
