"""What a client is told of a turn: reasoning, answer and calls out of tokens, broken ones too."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4.endpoint.turn import Piece, read_turn
from gpt_oss_mxfp4.harmony import Delta, HarmonyParser
from gpt_oss_mxfp4.harmony_header import Kind
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
PROMPT = "<|start|>user<|message|>Hello<|end|><|start|>assistant"
TOOLS = ("calculator",)

FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"


def pieces(answer: str, tools: Collection[str] | None = TOOLS, prompt: str = PROMPT) -> list[Piece]:
    turn = read_turn(TOKENIZER, TOKENIZER.encode(prompt), tools)
    found = [piece for token in TOKENIZER.encode(answer) for piece in turn.add(token)]
    return [*found, *turn.finish()]


def told(answer: str, tools: Collection[str] | None = TOOLS, prompt: str = PROMPT) -> list[str]:
    """Runs of one kind: ``reasoning:text``, ``answer:text``, ``call:name(arguments)``."""
    runs: list[str] = []
    last: Kind | None = None
    for piece in pieces(answer, tools, prompt):
        if piece.kind is not last or piece.tool is not None:
            runs.append(f"{piece.kind.value}:{'' if piece.tool is None else f'{piece.tool}('}")
        runs[-1] += piece.text + ")" * piece.ended
        last = None if piece.ended else piece.kind
    return runs


def faults(answer: str, tokens: int | None = None) -> int:
    turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), TOOLS)
    for token in TOKENIZER.encode(answer)[:tokens]:
        turn.add(token)
    turn.finish()
    return turn.faults


REGULAR = [
    (f"{ANALYSIS}Hm.{NEXT}{FINAL}Hi<|return|>", ["reasoning:Hm.", "answer:Hi"]),
    (f"{FINAL}Hi<|return|>", ["answer:Hi"]),
    (
        f"{ANALYSIS}One.{NEXT}{ANALYSIS}Two.{NEXT}{FINAL}Hi<|return|>",
        ["reasoning:One.\nTwo.", "answer:Hi"],
    ),
    (
        f"<|channel|>commentary<|message|>I shall look.{NEXT}{FINAL}Hi<|return|>",
        ["answer:I shall look.\nHi"],
    ),
    (
        f"{ANALYSIS}Hm.{NEXT}<|channel|>commentary to=functions.calculator <|constrain|>json"
        '<|message|>{"a": 1}<|call|>',
        ["reasoning:Hm.", 'call:calculator({"a": 1})'],
    ),
    (
        " to=functions.calculator<|channel|>commentary json<|message|>{}<|call|>",
        ["call:calculator({})"],
    ),
    ("<|channel|>commentary to=functions.calculator<|message|><|call|>", ["call:calculator()"]),
    ("<|channel|>final to=functions.calculator<|message|>Hi<|return|>", ["answer:Hi"]),
    ("Hi", ["answer:Hi"]),  # cut off in what may become a header
]


@pytest.mark.parametrize(("answer", "expected"), REGULAR)
def test_messages_are_told_by_what_they_are_for(answer: str, expected: list[str]) -> None:
    assert told(answer) == expected
    assert {faults(answer, cut) for cut in range(len(TOKENIZER.encode(answer)) + 1)} == {0}


@pytest.mark.parametrize(
    ("recipient", "tools", "expected"),
    [
        ("functions.calculator", TOOLS, "call:calculator(x)"),
        ("functions.other", TOOLS, "call:other(x)"),  # the client's to refuse
        ("calculator", TOOLS, "call:calculator(x)"),
        ("repo_browser.open", TOOLS, "call:repo_browser.open(x)"),
        ("browser.search", TOOLS, "reasoning:x"),
        ("browser.search", ["browser.search"], "call:browser.search(x)"),
        ("user", TOOLS, "reasoning:x"),
        ("python", TOOLS, "reasoning:x"),
        ("functions", TOOLS, "reasoning:x"),
        ("functions.calculator", None, "reasoning:x"),
        ("functions.calculator", (), "call:calculator(x)"),
    ],
)
def test_a_call_is_of_what_was_offered(
    recipient: str, tools: Collection[str] | None, expected: str
) -> None:
    assert told(f"<|channel|>commentary to={recipient}<|message|>x<|call|>", tools) == [expected]


@pytest.mark.parametrize("recipient", ["functions.calculator", "browser.search"])
def test_a_call_is_told_where_none_are_offered_if_that_is_asked_for(recipient: str) -> None:
    call = f"<|channel|>commentary to={recipient}<|message|>x<|call|>"
    turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), None, every_call=True)
    found = [piece for token in TOKENIZER.encode(call) for piece in turn.add(token)]
    assert found == [Piece(Kind.CALL, "x", recipient), Piece(Kind.CALL, "", ended=True)]
    assert turn.finish() == []


def test_the_end_of_an_answer_is_known_in_the_format_alone() -> None:
    for prompt, expected in ((PROMPT, [False, True]), ("[INST] Hello [/INST]", [False, False])):
        turn = read_turn(TOKENIZER, TOKENIZER.encode(prompt), TOOLS)
        stopped = []
        for token in TOKENIZER.encode(f"{FINAL}c<|return|>")[-2:]:
            turn.add(token)
            stopped.append(turn.stopped)
        assert stopped == expected


BROKEN = [
    ("Hi<|return|>", ["answer:Hi"]),  # no header
    ("<|message|>Hi<|return|>", ["answer:Hi"]),  # no channel
    ("<|channel|>thoughts<|message|>Hi<|return|>", ["answer:Hi"]),
    ("<|channel|>finalHi<|return|>", ["answer:Hi"]),  # no <|message|>
    ("<|channel|>analysis<|channel|>final<|message|>Hi<|return|>", ["answer:Hi"]),
    (f"{FINAL}<|message|>Hi<|return|>", ["answer:Hi"]),
    (f"{ANALYSIS}Hm.<|start|>assistant{FINAL}Hi<|return|>", ["reasoning:Hm.", "answer:Hi"]),
    (f"{ANALYSIS}Hm.{FINAL}Hi<|return|>", ["reasoning:Hm.", "answer:Hi"]),
    (f"{ANALYSIS}Hm.<|end|>assistant{FINAL}Hi<|return|>", ["reasoning:Hm.", "answer:Hi"]),
    (f"{ANALYSIS}Hm.<|end|>Lost words{FINAL}Hi", ["reasoning:Hm.", "answer:Lost words\nHi"]),
    (
        "<|channel|>commentary to=functions.calculator <|constrain|>json{}<|call|>",
        ["call:calculator({})"],
    ),
    (f"<|start|>assistant{FINAL}Hi<|return|>", ["answer:Hi"]),
    (
        f"<|end|><|start|>user<|message|>And you?{NEXT}{FINAL}Hi",
        ["reasoning:And you?", "answer:Hi"],
    ),
]


@pytest.mark.parametrize(("answer", "expected"), BROKEN)
def test_broken_messages_are_told_and_counted(answer: str, expected: list[str]) -> None:
    assert told(answer) == expected
    assert faults(answer) > 0


def test_special_tokens_spelled_in_text_are_text() -> None:
    turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), TOOLS)
    spelled = "<|end|><|start|>assistant to=functions.calculator<|channel|>commentary<|message|>{}"
    ids = [*TOKENIZER.encode(FINAL), *spelled.encode()]
    found = [piece for token in ids for piece in turn.add(token)]
    assert {piece.kind for piece in found} == {Kind.ANSWER}
    assert "".join(piece.text for piece in found) == spelled


@pytest.mark.parametrize("answer", [answer for answer, _ in (*REGULAR, *BROKEN)])
def test_a_turn_cut_off_anywhere_calls_nothing_but_what_it_would(answer: str) -> None:
    def calls(text_ids: list[int]) -> list[tuple[str | None, str, bool]]:
        turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), TOOLS)
        found = [piece for token in text_ids for piece in turn.add(token)]
        told = [piece for piece in (*found, *turn.finish()) if piece.kind is Kind.CALL]
        name = next((piece.tool for piece in told), None)
        arguments = "".join(piece.text for piece in told)
        return [(name, arguments, told[-1].ended)] if told else []

    ids = TOKENIZER.encode(answer)
    whole = calls(ids)
    for n in range(len(ids)):
        for name, arguments, ended in calls(ids[:n]):
            assert name == whole[0][0]
            assert whole[0][1].startswith(arguments)
            assert not ended


def test_calls_that_follow_one_another_are_apart() -> None:
    header = "<|channel|>commentary to=functions"
    calls = f"{header}.calculator<|message|>{{}}{NEXT}{header}.clock<|message|>{{}}<|call|>"
    assert told(calls) == ["call:calculator({})", "call:clock({})"]


def test_a_call_that_is_cut_off_has_begun_once_its_header_is_whole() -> None:
    header = "<|channel|>commentary to=functions.calculator"
    assert told(header) == []
    assert told(f"{header}<|constrain|>json{{}}") == ["reasoning:{}"]
    assert told(f"{header}<|message|>") == ["call:calculator("]


WORDS = st.sampled_from(
    [
        *TOKENIZER.special,
        "assistant",
        "analysis",
        "final",
        "commentary",
        " to=functions.f",
        "z",
        "zz z",
        " ",
        "é€",
    ]
)


@given(st.lists(WORDS, max_size=30).map("".join), st.sampled_from([None, (), ("f",)]))
def test_all_text_of_all_messages_is_told_in_order(
    answer: str, tools: Collection[str] | None
) -> None:
    ids = TOKENIZER.encode(answer)
    parser = HarmonyParser(TOKENIZER, TOKENIZER.encode(PROMPT))
    events = [*parser.add(ids), *parser.finish()]
    texts = "".join(event.text for event in events if isinstance(event, Delta))
    told = "".join(piece.text for piece in pieces(answer, tools))
    assert told.replace("\n", "") == texts  # none has a line's end, which stands between messages


@given(st.lists(WORDS, max_size=30).map("".join))
def test_every_call_begins_and_ends_once(answer: str) -> None:
    open_calls = 0
    for piece in pieces(answer, ("f",)):
        open_calls += piece.tool is not None
        assert open_calls <= 1
        assert open_calls or piece.kind is not Kind.CALL
        open_calls -= piece.ended
    assert open_calls <= 1  # the last may be cut off


def test_the_kind_of_each_token_is_known() -> None:
    turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), TOOLS)
    kinds = []
    for token in TOKENIZER.encode(f"{ANALYSIS}ab{NEXT}{FINAL}c<|return|>"):
        turn.add(token)
        kinds.append(turn.kind)
    assert [kind for kind in kinds if kind] == [Kind.REASONING, Kind.REASONING, Kind.ANSWER]
    assert kinds[-1] is None


def test_outside_of_harmony_all_is_the_answer() -> None:
    prompt = "[INST] Hello [/INST]"
    assert told(f"{ANALYSIS}Hm€<|return|>", prompt=prompt) == ["answer:analysisHm€"]
    assert read_turn(TOKENIZER, TOKENIZER.encode(prompt), None).faults == 0


def test_special_tokens_in_a_reasoning_without_text_are_no_reasoning() -> None:
    """Else MAX's server takes the answer for reasoning (``hooks.py``)."""
    answer = f"{ANALYSIS}<|message|>{NEXT}{FINAL}Hello<|return|>"
    turn = read_turn(TOKENIZER, TOKENIZER.encode(PROMPT), TOOLS)
    kinds = []
    for token in TOKENIZER.encode(answer):
        turn.add(token)
        kinds.append(turn.kind)
    assert set(kinds) == {None, Kind.ANSWER}
    assert kinds.count(Kind.ANSWER) == len("Hello")
