"""How what the user says is cut into turns; at a terminal: test_terminal.py."""

from __future__ import annotations

import io

import pytest

from gpt_oss_mxfp4.chat.turns import TurnReader
from gpt_oss_mxfp4.options import Refused


def turns(data: bytes) -> list[str]:
    reader = TurnReader(io.TextIOWrapper(io.BytesIO(data)), interactive=False)
    return list(iter(reader.read, None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one", ["one"]),
        ("one\r\n\r\n  \ntwo\r\n", ["one", "two"]),
        ("one\\\ntwo\nthree\n", ["one\ntwo", "three"]),
        ("one\\", ["one"]),
        ('"""\none\n\ntwo\\\n"""\nthree\n', ["one\n\ntwo\\", "three"]),
        ('"""\none\n', ["one"]),
        ("", []),
        ("grüß 🙂\n", ["grüß 🙂"]),
    ],
)
def test_a_line_is_a_turn_unless_it_goes_on(text: str, expected: list[str]) -> None:
    assert turns(text.encode()) == expected


def test_what_is_no_utf_8_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        turns(b"gr\xfc\xdf\n")
    assert str(refusal.value) == "standard input: must be valid UTF-8"
