"""Pieces of text that come out of tokens as they come in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4.detokenize import INCOMPLETE, StreamingDetokenizer

SPECIAL = 256


class ByteTokenizer:
    """Every byte is a token; token 256 is special."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(i for i in token_ids if i != SPECIAL).decode(errors="replace")


class StrippingTokenizer:
    """Drops the space before the first word, as SentencePiece does."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return "".join(f" w{i}" for i in token_ids if i != SPECIAL)[1:]


def pieces(ids: Sequence[int]) -> list[str]:
    detokenizer = StreamingDetokenizer(ByteTokenizer())
    return [*(detokenizer.add([i]) for i in ids), detokenizer.finish()]


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_a_split_character_comes_out_whole_with_its_last_byte(character: str) -> None:
    data = character.encode()
    assert pieces(data) == [*[""] * (len(data) - 1), character, ""]


def test_the_rest_of_a_character_that_never_comes_is_not_printed() -> None:
    assert pieces("a€".encode()[:-1]) == ["a", "", "", ""]


def test_bytes_that_are_no_text_are_replaced_once_text_follows() -> None:
    assert pieces(b"\xffa") == ["", f"{INCOMPLETE}a", ""]


def test_special_tokens_are_skipped() -> None:
    assert pieces([*b"a", SPECIAL, *b"b"]) == ["a", "", "b", ""]


def test_spaces_between_pieces_survive_a_tokenizer_that_strips_the_first() -> None:
    detokenizer = StreamingDetokenizer(StrippingTokenizer())
    ids = [0, 1, SPECIAL, SPECIAL, 2]
    assert [detokenizer.add([i]) for i in ids] == ["w0", " w1", "", "", " w2"]


def test_another_text_begins_after_the_end_of_one() -> None:
    detokenizer = StreamingDetokenizer(ByteTokenizer())
    euro = "€".encode()
    assert [detokenizer.add(euro[:2]), detokenizer.finish()] == ["", ""]
    assert [detokenizer.add(euro[2:]), detokenizer.add(b"a")] == ["", f"{INCOMPLETE}a"]


@given(st.text(), st.integers(1, 5))
def test_pieces_join_to_the_whole_text(text: str, size: int) -> None:
    data = text.encode(errors="replace")
    detokenizer = StreamingDetokenizer(ByteTokenizer())
    got = [detokenizer.add(data[i : i + size]) for i in range(0, len(data), size)]
    # A U+FFFD that the text itself ends with cannot be told from a character cut off.
    assert "".join([*got, detokenizer.finish()]).rstrip(INCOMPLETE) == data.decode().rstrip(
        INCOMPLETE
    )
