"""TemplateEncoder: what a chat template renders to tokens, special tokens being the template's alone."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from gpt_oss_mxfp4.detokenize import INCOMPLETE
from gpt_oss_mxfp4.special_text import MARK, SpecialText

_SURROGATES = re.compile("[\ud800-\udfff]")


class TemplateEncoder:
    """Hides special tokens in what a template is given, and encodes what it makes of that.

    Args:
        tokenizer: Hugging Face's, of the kind that has a backend in Rust.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids = {
            str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._special_text = SpecialText(self._ids)

    def hide(self, value: Any) -> Any:
        """Gives what a template may be given, as :meth:`SpecialText.hide`."""
        return self._special_text.hide(value)

    def encode(self, rendered: str) -> list[int]:
        """Gives the tokens of a rendered string."""
        if MARK not in rendered:
            return list(self._tokenizer.encode(rendered, add_special_tokens=False))
        ids: list[int] = []
        for part, special in self._special_text.split(rendered):
            if special:
                ids.append(self._ids[part])
            else:
                text = _SURROGATES.sub(INCOMPLETE, part)
                ids += self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the plain copy, which would come to another process with special tokens again."""
        return {name: value for name, value in vars(self).items() if name != "_plain"}

    @cached_property
    def _plain(self) -> Any:
        """The same tokenizer, to which special tokens are text. Few prompts need it, and it takes long to make."""
        plain = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        plain.encode_special_tokens = True
        return plain
