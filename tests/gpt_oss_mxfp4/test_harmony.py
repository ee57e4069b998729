"""Messages out of harmony's tokens: who says what to whom, as it comes, and what becomes of broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4 import harmony
from gpt_oss_mxfp4.harmony import (
    CONSTRAIN,
    SPECIAL_TOKENS,
    Delta,
    Event,
    HarmonyParser,
    MessageEnd,
    is_harmony,
    stop_ids,
)
from gpt_oss_mxfp4.harmony_header import Header, Kind, message_kind
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
PROMPT = "<|start|>user<|message|>Hello<|end|><|start|>assistant"

ANALYSIS = Header(role="assistant", channel="analysis")
FINAL = Header(role="assistant", channel="final")
CALCULATOR = Header(
    role="assistant",
    channel="commentary",
    recipient="functions.calculator",
)

Message = tuple[Header, str, str | None]


def events(
    answer: str, *, size: int = 1, prompt: str = PROMPT, tokenizer: Any = TOKENIZER
) -> list[Event]:
    ids = tokenizer.encode(answer)
    parser = HarmonyParser(tokenizer, tokenizer.encode(prompt))
    pieces = [parser.add(ids[i : i + size]) for i in range(0, len(ids), size)]
    return [event for piece in (*pieces, parser.finish()) for event in piece]


def messages(answer: str, prompt: str = PROMPT, tokenizer: Any = TOKENIZER) -> list[Message]:
    """Header, whole text and the token at the end of each message."""
    found: list[Message] = []
    text = ""
    for event in events(answer, prompt=prompt, tokenizer=tokenizer):
        if isinstance(event, Delta):
            text += event.text
        else:
            found.append((event.header, text, event.token))
            text = ""
    assert text == ""
    return found


def test_reasoning_and_answer_are_two_messages() -> None:
    answer = (
        "<|channel|>analysis<|message|>A greeting.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hi!\n<|return|>"
    )
    assert messages(answer) == [
        (ANALYSIS, "A greeting.", "<|end|>"),
        (FINAL, "Hi!\n", "<|return|>"),
    ]


def test_text_comes_as_it_is_said_with_its_last_byte() -> None:
    assert events("<|channel|>final<|message|>a€<|return|>") == [
        Delta(FINAL, "a"),
        Delta(FINAL, "€"),
        MessageEnd(FINAL, "<|return|>"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.calculator <|constrain|>json",
        "<|channel|>commentary to=functions.calculator<|constrain|>json",
        "<|channel|>commentary to=functions.calculator json",
        " to=functions.calculator<|channel|>commentary <|constrain|>json",
        " to=functions.calculator<|channel|>commentary json",
    ],
)
def test_a_call_has_its_recipient_wherever_it_and_the_type_stand(header: str) -> None:
    assert messages(header + '<|message|>{"expression": "1"}<|call|>') == [
        (CALCULATOR, '{"expression": "1"}', "<|call|>")
    ]


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("<|channel|>commentary", Header(role="assistant", channel="commentary")),
        (
            "<|channel|>analysis to=python code",
            Header(role="assistant", channel="analysis", recipient="python"),
        ),
        (
            "<|channel|> to=functions.f",
            Header(role="assistant", recipient="functions.f"),
        ),
        ("<|channel|>finality", Header(role="assistant", channel="finality")),
        ("", Header(role="assistant")),
    ],
)
def test_a_header_is_what_stands_before_the_text(header: str, parsed: Header) -> None:
    assert messages(header + "<|message|>x<|end|>") == [(parsed, "x", "<|end|>")]


def test_a_tool_that_is_made_to_speak_is_the_role() -> None:
    answer = "<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|>"
    header = Header(role="functions.f", recipient="assistant", channel="commentary")
    assert messages(answer) == [(header, "1", "<|end|>")]


def test_a_message_without_text_has_an_end() -> None:
    assert events("<|channel|>final<|message|><|return|>") == [MessageEnd(FINAL, "<|return|>")]


def test_tokens_that_run_out_end_the_message_without_the_rest_of_a_character() -> None:
    parser = HarmonyParser(TOKENIZER, TOKENIZER.encode(PROMPT))
    ids = TOKENIZER.encode("<|channel|>final<|message|>a€")[:-1]
    assert parser.add(ids) == [Delta(FINAL, "a")]
    assert parser.finish() == [MessageEnd(FINAL, None)]
    assert parser.finish() == []


class MergingTokenizer(ByteTokenizer):
    """Has a token more, of a letter and the first byte of a character."""

    MERGED = 1000

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        parts = (b"a\xe2" if i == self.MERGED else [i] for i in token_ids)
        ids = [i for part in parts for i in part]
        return super().decode(ids, skip_special_tokens=skip_special_tokens)


def test_a_letter_in_one_token_with_the_part_of_a_character_is_not_lost() -> None:
    parser = HarmonyParser(MergingTokenizer(), TOKENIZER.encode(f"{PROMPT}<|message|>"))
    end = TOKENIZER.encode("<|end|>")
    header = Header(role="assistant")
    assert parser.add([MergingTokenizer.MERGED]) == []
    assert parser.add(end) == [Delta(header, "a"), MessageEnd(header, "<|end|>")]


@pytest.mark.parametrize(
    "cut", ["", "<|channel|>", "<|channel|>analysis", "<|channel|>analysis<|message|>Hm<|end|>"]
)
def test_tokens_that_run_out_in_a_header_are_no_message(cut: str) -> None:
    assert [m for m in messages(cut) if m[0] != ANALYSIS] == []


def test_a_prompt_may_begin_the_answer() -> None:
    prompt = PROMPT + "<|channel|>final<|message|>Well"
    assert messages(", hello<|return|>", prompt) == [(FINAL, ", hello", "<|return|>")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # No header at all.
        ("Hi there.<|return|>", [(Header(role="assistant"), "Hi there.", "<|return|>")]),
        ("Hi there.", [(Header(role="assistant"), "Hi there.", None)]),
        # No <|message|>.
        ("<|channel|>finalHi there.<|return|>", [(FINAL, "Hi there.", "<|return|>")]),
        (
            '<|channel|>commentary to=functions.calculator <|constrain|>json {"a": 1}<|call|>',
            [(CALCULATOR, '{"a": 1}', "<|call|>")],
        ),
        (
            "<|channel|>commentary to=functions.calculator <|constrain|>json<|call|>",
            [(CALCULATOR, "", "<|call|>")],
        ),
        ("<|constrain|>yes<|return|>", [(Header(role="assistant"), "yes", "<|return|>")]),
        (
            "<|channel|>analysis Hm.<|channel|>final<|message|>Hi<|return|>",
            [
                (ANALYSIS, "Hm.", "<|channel|>"),
                (Header(channel="final"), "Hi", "<|return|>"),
            ],
        ),
        # No <|end|>.
        (
            "<|channel|>analysis<|message|>Hm.<|start|>assistant<|channel|>final<|message|>Hi",
            [(ANALYSIS, "Hm.", "<|start|>"), (FINAL, "Hi", None)],
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi<|endoftext|>",
            [
                (ANALYSIS, "Hm.", "<|channel|>"),
                (Header(channel="final"), "Hi", "<|endoftext|>"),
            ],
        ),
        # No <|start|>.
        (
            "<|channel|>analysis<|message|>Hm.<|end|>\nassistant\n<|channel|>final<|message|>Hi",
            [(ANALYSIS, "Hm.", "<|end|>"), (FINAL, "Hi", None)],
        ),
        (
            "<|end|> Lost words <|channel|>final<|message|>Hi",
            [(Header(), "Lost words", "<|channel|>"), (Header(channel="final"), "Hi", None)],
        ),
        ("<|end|>Lost words<|return|>", [(Header(), "Lost words", "<|return|>")]),
        ("<|end|>\n<|return|>", []),
        # Special tokens where they mean nothing.
        (
            "<|channel|>final<|message|>a<|message|>b<|constrain|>c<|end|>",
            [(FINAL, "abc", "<|end|>")],
        ),
        ("<|return|><|call|><|end|>", []),
        (
            "<|channel|>final<|constrain|><|constrain|><|message|>a<|end|>",
            [(FINAL, "a", "<|end|>")],
        ),
    ],
)
def test_broken_messages_lose_no_text(answer: str, expected: list[Message]) -> None:
    assert messages(answer) == expected


def test_a_call_is_none_where_tokens_run_out_in_its_header() -> None:
    header = "<|channel|>commentary to=functions.calc"
    assert messages(header) == []
    reasoning = Header(role="assistant", channel="analysis")
    assert messages(f"{header} <|constrain|>json {{}}") == [(reasoning, "{}", None)]
    answer = Header(role="assistant", channel="final", recipient="user")
    assert messages("<|channel|>final to=user <|constrain|>json {}") == [(answer, "{}", None)]


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (FINAL, Kind.ANSWER),
        (Header(channel="final", recipient="user"), Kind.ANSWER),
        (Header(channel="commentary"), Kind.ANSWER),
        (Header(channel="thoughts"), Kind.ANSWER),
        (Header(), Kind.ANSWER),
        (ANALYSIS, Kind.REASONING),
        (Header(role="user", channel="final"), Kind.REASONING),
        (Header(role="functions.f", recipient="assistant"), Kind.REASONING),
        (CALCULATOR, Kind.CALL),
        (Header(channel="analysis", recipient="python"), Kind.CALL),
        (Header(recipient="functions.f"), Kind.CALL),
    ],
)
def test_what_a_message_is_for_is_in_its_header(header: Header, kind: Kind) -> None:
    assert message_kind(header) is kind


PIECES = st.sampled_from(
    [
        *TOKENIZER.special,
        *("assistant", "analysis", "final", "commentary", "json"),
        *(" to=functions.f", "z", "zz z", " ", "\n", "é€😀"),
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join), st.integers(2, 9))
def test_events_do_not_depend_on_how_tokens_are_cut(answer: str, size: int) -> None:
    assert events(answer, size=size) == events(answer, size=1)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_nothing_said_is_lost(answer: str) -> None:
    def unread(*sections: str) -> Header:
        return Header(role="".join(sections))

    # A header that is whole drops what it has no field for: what is said in it is lost no earlier.
    with patch.object(harmony, "parse_header", unread):
        found = messages(
            f"{answer}<|return|>"
        )  # without, a call's name is not told where it is the last thing said
    said = "".join(
        text + "".join(filter(None, (h.role, h.channel, h.recipient))) for h, text, _ in found
    )
    assert said.count("z") == answer.count("z")


@given(st.lists(PIECES, max_size=30).map("".join))
def test_every_message_has_one_end(answer: str) -> None:
    for is_end, group in groupby(events(answer), key=lambda event: isinstance(event, MessageEnd)):
        if not is_end:
            assert len({event.header for event in group}) == 1
    assert not events(answer) or isinstance(events(answer)[-1], MessageEnd)


def test_faults_of_a_prompt_are_not_the_answers() -> None:
    prompt = "<|start|>user<|message|>Hello<|end|>"
    parser = HarmonyParser(TOKENIZER, TOKENIZER.encode(prompt))
    assert parser.faults == 0
    parser.add(TOKENIZER.encode("Hi<|return|>"))
    assert parser.faults == 1


def test_the_parser_knows_where_it_is() -> None:
    parser = HarmonyParser(TOKENIZER, TOKENIZER.encode(PROMPT))
    seen = []
    for token_id in TOKENIZER.encode("<|channel|>final<|message|>a<|return|>"):
        parser.add([token_id])
        seen.append((parser.header, parser.stopped))
    assert seen[-3:] == [(FINAL, False), (FINAL, False), (None, True)]
    assert {header for header, _ in seen[:-3]} == {None}


def test_a_tokenizer_of_hugging_face_is_read_alike() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert is_harmony(tokenizer, tokenizer.encode(PROMPT))
    answer = (
        "<|channel|>analysis<|message|>The 灯台 is, \n 12 of them.<|end|><|start|>assistant<|channel|>"
        'commentary to=functions.calculator <|constrain|>json<|message|>{"expression": "12"}<|call|>'
    )
    assert messages(answer, tokenizer=tokenizer) == messages(answer)
    assert len(messages(answer)) == 2


def test_a_prompt_is_harmonys_if_tokenizer_and_template_are() -> None:
    assert is_harmony(TOKENIZER, TOKENIZER.encode(PROMPT))
    assert not is_harmony(TOKENIZER, TOKENIZER.encode("[INST] Hello [/INST]"))
    lacking = ByteTokenizer([token for token in SPECIAL_TOKENS if token != CONSTRAIN])
    assert not is_harmony(lacking, lacking.encode(PROMPT))


def test_an_answer_ends_with_the_tokens_that_there_are() -> None:
    ids = TOKENIZER.get_added_vocab()
    assert stop_ids(TOKENIZER) == [ids["<|return|>"], ids["<|call|>"], ids["<|endoftext|>"]]
    lacking = ByteTokenizer(SPECIAL_TOKENS)
    assert len(stop_ids(lacking)) == 2
    answer = "<|channel|>final<|message|>Hi<|return|>"
    assert messages(answer, tokenizer=lacking) == [(FINAL, "Hi", "<|return|>")]
