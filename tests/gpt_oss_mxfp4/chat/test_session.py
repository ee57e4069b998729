"""A conversation and its commands, with somebody who answers what a test tells them to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gpt_oss_mxfp4.chat.answer import End, Message
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.chat.screen import Screen
from gpt_oss_mxfp4.chat.session import HELP, Session
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.options import Effort, Refused


class Parrot:
    """Answers what it is told to, and remembers what it was asked."""

    name = "parrot"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.says: list[Piece | End] = []
        self.refuses = ""
        self.stops = 0

    def answer(
        self, messages: Sequence[Message], *, effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        if self.refuses:
            raise Refused(self.refuses)
        asked = {"messages": list(messages), "effort": effort, "temperature": temperature}
        asked["seed"] = seed
        self.asked.append(asked)
        yield from self.says

    def stop(self) -> None:
        self.stops += 1


class Talk:
    def __init__(self, **options: Any) -> None:
        self.parrot = Parrot()
        self.parrot.says = [Piece(Kind.REASONING, "hm"), Piece(Kind.ANSWER, "Yes."), End()]
        self.written: list[str] = []
        self.notes: list[str] = []
        screen = Screen(self.written.append, terminal=False, colour=False)
        self.session = Session(
            self.parrot, ChatOptions(**options), screen, self.notes.append, reasoning=False
        )

    def __call__(self, *turns: str) -> Talk:
        for turn in turns:
            self.session.take(turn)
        return self

    @property
    def last(self) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in self.parrot.asked[-1]["messages"]]


def test_a_question_is_asked_with_what_was_said_before_it_but_the_reasoning() -> None:
    talk = Talk(system="Be short.")("One?", "Two?")
    assert talk.last == [
        ("system", "Be short."),
        ("user", "One?"),
        ("assistant", "Yes."),
        ("user", "Two?"),
    ]
    assert "".join(talk.written) == "Yes.\nYes.\n"


def test_new_forgets_and_again_asks_once_more() -> None:
    talk = Talk()("One?", "Two?", "/again")
    assert talk.last == [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    assert talk("/new", "Three?").last == [("user", "Three?")]


def test_each_answer_has_a_seed_of_its_own_and_equal_conversations_have_equal_ones() -> None:
    seeds = [
        [asked["seed"] for asked in Talk(seed=seed)("One?", "/again", "Two?").parrot.asked]
        for seed in [2**64 - 1, 2**64 - 1, 2**63 - 1 - 2**32]
    ]
    assert seeds[0] == seeds[1] == [2**63 - 1, 2**32 - 1, 2**33 - 1]
    assert seeds[2] == [2**63 - 1 - 2**32, 2**63 - 1, 2**32 - 1]


def test_commands_change_what_is_asked_for() -> None:
    talk = Talk()("/effort high", "/temperature 0.5", "/system Be kind.", "One?")
    assert (talk.parrot.asked[0]["effort"], talk.parrot.asked[0]["temperature"]) == ("high", 0.5)
    assert talk.last[0] == ("system", "Be kind.")
    assert talk("/system", "Two?").last[0] == ("user", "One?")


def test_commands_that_change_something_say_so() -> None:
    talk = Talk()
    talk("/new", "/effort low", "/reasoning on", "/system Be kind.", "/system")
    talk("/temperature 0.50", "/temperature 0", "/temperature 2")
    assert talk.notes == [
        "a new conversation",
        "effort: low",
        "reasoning: on",
        "other instructions from here on",
        "no instructions",
        "temperature: 0.5",
        "temperature: 0",
        "temperature: 2",
    ]


def test_reasoning_is_shown_once_it_is_asked_for() -> None:
    talk = Talk()("/reasoning on", "One?", "Two?", "/reasoning off", "Three?")
    assert "".join(talk.written) == "[analysis]\nhm\n\n[final]\nYes.\n" * 2 + "Yes.\n"


def test_help_names_every_command() -> None:
    talk = Talk()("/help")
    assert talk.notes == [HELP]
    assert all(
        f"/{name}" in HELP
        for name in ["new", "again", "effort", "reasoning", "temperature", "system"]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/effort max", "/effort: must be low, medium or high, got max"),
        ("/reasoning", "/reasoning: must be on or off, got ''"),
        ("/temperature 3", "/temperature: must be a number from 0 to 2, got 3"),
        ("/temperature nan", "/temperature: must be a number from 0 to 2, got nan"),
        ("/again", "/again: nothing has been asked"),
        *(
            (
                line,
                f"{line.split()[0]} is no command: /help lists them, and a space before it says it to the model",
            )
            for line in ("/newer", "/new x", "/again x", "/help x")
        ),
    ],
)
def test_what_is_no_command_is_refused(line: str, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        Talk()(line)
    assert str(refusal.value) == message


def test_a_space_says_it_to_the_model() -> None:
    assert Talk()(" /new").last == [("user", " /new")]


def test_a_question_that_is_refused_leaves_the_conversation_as_it_was() -> None:
    talk = Talk()("One?")
    for turn in ("Two?", "/again"):
        talk.parrot.refuses = "too long"
        with pytest.raises(Refused, match="too long"):
            talk(turn)
    talk.parrot.refuses = ""
    assert talk("Three?").last == [("user", "One?"), ("assistant", "Yes."), ("user", "Three?")]


def test_an_answer_without_text_is_not_sent_back() -> None:
    talk = Talk()
    talk.parrot.says = [Piece(Kind.REASONING, "hm"), End(stopped=True)]
    assert talk("One?", "Two?").last == [("user", "One?"), ("user", "Two?")]


@pytest.mark.parametrize(
    ("says", "notes"),
    [
        ([Piece(Kind.ANSWER, "So"), End(stopped=True)], ["stopped"]),
        ([Piece(Kind.ANSWER, "So"), End(cut=True)], ["cut off: the tokens are used up"]),
        ([End()], ["the model ended without an answer"]),
        (
            [End(calls=(("functions.add", '{"a": 1}'),))],
            ['the model called functions.add, but chat offers no tools: {"a": 1}'],
        ),
        ([Piece(Kind.ANSWER, "S"), End(prompt_tokens=7)], []),
        ([Piece(Kind.ANSWER, "S"), End(tokens=7)], []),
        ([Piece(Kind.ANSWER, "S"), End(7, 1, 2.0)], ["prompt: 7 tokens; generation: 1 token"]),
        ([Piece(Kind.ANSWER, "So"), End(7, 2, 0.0)], ["prompt: 7 tokens; generation: 2 tokens"]),
        (
            [Piece(Kind.ANSWER, "So"), End(7, 2, 2.0)],
            ["prompt: 7 tokens; generation: 2 tokens, 0.50 tokens/s"],
        ),
        (
            [Piece(Kind.ANSWER, "So"), End(7, 5, 2.0)],
            ["prompt: 7 tokens; generation: 5 tokens, 2.00 tokens/s"],
        ),
    ],
)
def test_what_became_of_an_answer_is_told(says: list[Piece | End], notes: list[str]) -> None:
    talk = Talk()
    talk.parrot.says = says
    assert talk("One?").notes == notes


def test_the_first_interrupt_stops_an_answer_and_the_second_is_not_taken() -> None:
    talk = Talk()
    assert talk.session.interrupt()
    taken: list[bool] = []

    def says() -> Iterator[Piece | End]:
        yield Piece(Kind.ANSWER, "So")
        taken.extend([talk.session.interrupt(), talk.session.interrupt()])
        yield End(stopped=True)

    talk.parrot.says = says()  # type: ignore[assignment]
    talk("One?")
    assert (taken, talk.parrot.stops) == ([True, False], 1)
    assert talk.session.interrupt()
    assert talk.parrot.stops == 1, "there is nothing to stop"
    talk.parrot.says = says()  # type: ignore[assignment]
    talk("Two?")
    assert (taken[2:], talk.parrot.stops) == ([True, False], 2)
