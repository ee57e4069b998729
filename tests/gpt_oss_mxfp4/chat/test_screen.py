"""What of an answer is shown on a terminal, and what elsewhere."""

from __future__ import annotations

import pytest

from gpt_oss_mxfp4.chat.screen import Screen
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.terminal import harmless

ANSWER = [
    Piece(Kind.REASONING, "a"),
    Piece(Kind.REASONING, "b"),
    Piece(Kind.ANSWER, "c"),
    Piece(Kind.ANSWER, "d"),
]


def shown(*, terminal: bool, colour: bool, reasoning: bool) -> str:
    written: list[str] = []
    screen = Screen(written.append, terminal=terminal, colour=colour)
    for piece in ANSWER:
        screen.show(piece, reasoning=reasoning)
    screen.end()
    return "".join(written)


@pytest.mark.parametrize(
    ("terminal", "colour", "reasoning", "text"),
    [
        (True, True, True, "\x1b[2ma\x1b[0m\x1b[2mb\x1b[0m\n\ncd\n\n"),
        (True, True, False, "cd\n\n"),
        (True, False, True, "[analysis]\nab\n\n[final]\ncd\n\n"),
        (False, False, True, "[analysis]\nab\n\n[final]\ncd\n"),
        (False, False, False, "cd\n"),
    ],
)
def test_reasoning_is_dim_or_under_a_title(
    terminal: bool, colour: bool, reasoning: bool, text: str
) -> None:
    assert shown(terminal=terminal, colour=colour, reasoning=reasoning) == text


def test_an_answer_without_text_is_an_empty_line_in_a_pipe_and_nothing_on_a_terminal() -> None:
    for terminal, text in ((False, "\n"), (True, "")):
        written: list[str] = []
        Screen(written.append, terminal=terminal, colour=False).end()
        assert "".join(written) == text


def test_a_model_cannot_steer_the_terminal() -> None:
    said = "\x1b]0;title\x07\x1b[2J\r\x9b1A\x7fok\t\n"
    assert harmless(said) == "␛]0;title␇␛[2J␍\ufffd1A␡ok\t\n"
    written: list[str] = []
    Screen(written.append, terminal=True, colour=True).show(
        Piece(Kind.ANSWER, said), reasoning=True
    )
    assert "".join(written) == harmless(said)


def test_a_pipe_gets_what_the_model_said() -> None:
    written: list[str] = []
    Screen(written.append, terminal=False, colour=False).show(
        Piece(Kind.ANSWER, "\x1b[2J"), reasoning=False
    )
    assert "".join(written) == "\x1b[2J"
