"""Strings that end an answer, wherever its pieces are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4.endpoint.stop_strings import StopStrings


def said(pieces: list[str], strings: list[str]) -> tuple[str, bool]:
    stop = StopStrings(strings)
    text = ""
    for piece in pieces:
        text += stop.add(piece)
        if stop.stopped:
            return text, True
    return text + stop.finish(), False


@pytest.mark.parametrize(
    ("pieces", "strings", "expected"),
    [
        (["one two three"], ["two"], ("one ", True)),
        (["one t", "wo three"], ["two"], ("one ", True)),
        (["one t", "en"], ["two"], ("one ten", False)),
        (["one t"], ["two"], ("one t", False)),
        (["a", "a", "b"], ["aab"], ("", True)),
        (["aaab"], ["aab"], ("a", True)),
        (["abc"], ["bc", "ab"], ("", True)),
        (["abc"], [], ("abc", False)),
        (["abc"], [""], ("abc", False)),
    ],
)
def test_the_first_string_ends_the_text(
    pieces: list[str], strings: list[str], expected: tuple[str, bool]
) -> None:
    assert said(pieces, strings) == expected


TEXT = st.text("ab", max_size=20)


@given(TEXT, st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_text_is_cut_at_the_first_place_and_nothing_else_is_lost(
    text: str, strings: list[str], size: int
) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    ends = [(end, text.find(s)) for s in strings for end in [text.find(s) + len(s)] if s in text]
    got, stopped = said(pieces, strings)
    assert stopped == bool(ends)
    if not ends:
        assert got == text
    else:
        # In one piece the leftmost string wins; in several it is the one that is whole first.
        assert text.startswith(got)
        assert not any(s in got for s in strings)
        assert len(got) <= min(end for end, _ in ends)


def test_what_cannot_be_part_of_a_string_is_given_at_once() -> None:
    stop = StopStrings(["\n\n"])
    assert [stop.add("one\n"), stop.add("two"), stop.add("\n")] == ["one", "\ntwo", ""]
    assert stop.finish() == "\n"
    assert stop.finish() == ""
    assert StopStrings([]).add("a") == "a"
