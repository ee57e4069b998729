"""What is printed of a generation, and what is told beside it, word for word."""

from __future__ import annotations

import pytest

from gpt_oss_mxfp4.answer import HarmonyAnswer, PlainAnswer
from gpt_oss_mxfp4.harmony import HarmonyParser
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
PROMPT = "<|start|>user<|message|>What is 12 + 34?<|end|><|start|>assistant"
REASONED = (
    "<|channel|>analysis<|message|>Ones: 2 + 4 = 6.\nTens: 1 + 3 = 4.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is 46.<|return|>"
)
CALLED = (
    "<|channel|>analysis<|message|>A product.<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json"
    '<|message|>{"expression": "12 * 34"}<|call|>'
)
CALL_NOTE = (
    'the model called functions.calculator, but generate offers no tools: {"expression": "12 * 34"}'
)


def printed(
    generated: str, *, show_reasoning: bool = False, limit: int = 1000
) -> tuple[str, list[str]]:
    """Text and notes of a generation that ends after so many tokens."""
    pieces: list[str] = []
    notes: list[str] = []
    answer = HarmonyAnswer(
        HarmonyParser(TOKENIZER, TOKENIZER.encode(PROMPT)),
        pieces.append,
        notes.append,
        max_new_tokens=limit,
        show_reasoning=show_reasoning,
    )
    for token_id in TOKENIZER.encode(generated)[:limit]:
        answer.add([token_id])
    assert notes == []
    answer.finish()
    return "".join(pieces), notes


def test_the_answer_alone_is_printed() -> None:
    assert printed(REASONED) == ("It is 46.\n", [])


def test_the_answer_is_printed_as_it_comes() -> None:
    pieces: list[str] = []
    parser = HarmonyParser(TOKENIZER, TOKENIZER.encode(PROMPT))
    answer = HarmonyAnswer(
        parser, pieces.append, pieces.append, max_new_tokens=1000, show_reasoning=False
    )
    for token_id in TOKENIZER.encode("<|channel|>final<|message|>Hi"):
        answer.add([token_id])
    assert pieces == ["H", "i"]


def test_reasoning_stands_before_the_answer_under_its_name() -> None:
    text = "[analysis]\nOnes: 2 + 4 = 6.\nTens: 1 + 3 = 4.\n\n[final]\nIt is 46.\n"
    assert printed(REASONED, show_reasoning=True) == (text, [])


def test_a_call_is_told() -> None:
    assert printed(CALLED) == ("", [CALL_NOTE])
    assert printed(CALLED, show_reasoning=True) == ("[analysis]\nA product.\n", [CALL_NOTE])
    assert printed(f"{CALLED}<|start|>assistant{CALLED}") == ("", [CALL_NOTE, CALL_NOTE])
    in_no_channel = CALLED.replace("<|channel|>commentary", "")
    assert printed(in_no_channel) == ("", [CALL_NOTE])


def test_a_call_is_told_in_one_line() -> None:
    header = "<|channel|>commentary to=functions.\x1bf"
    note = "the model called 'functions.\\x1bf', but generate offers no tools: '{\\n}'"
    assert printed(header + "<|message|>{\n}<|call|>") == ("", [note])


def test_a_call_that_tokens_run_out_in_the_header_of_is_not_told() -> None:
    generated = "<|channel|>commentary to=functions.calc"
    limit = len(TOKENIZER.encode(generated))
    note = f"no answer within {limit} tokens: raise --max-new-tokens, or see its reasoning with --show-reasoning"
    assert printed(generated, limit=limit) == ("", [note])


def test_what_precedes_a_call_is_shown_with_the_reasoning() -> None:
    preamble = "<|channel|>commentary<|message|>I shall calculate.<|end|><|start|>assistant"
    assert printed(preamble + CALLED) == ("", [CALL_NOTE])
    text = "[commentary]\nI shall calculate.\n\n[analysis]\nA product.\n"
    assert printed(preamble + CALLED, show_reasoning=True) == (text, [CALL_NOTE])


@pytest.mark.parametrize("limit", [1, 20, 45, 55])
def test_tokens_that_run_out_before_the_answer_are_told_with_the_cure(limit: int) -> None:
    note = f"no answer within {limit} tokens: raise --max-new-tokens"
    text, notes = printed(REASONED, limit=limit)
    assert text == ""
    assert notes == [f"{note}, or see its reasoning with --show-reasoning"]
    assert printed(REASONED, limit=limit, show_reasoning=True)[1] == [note]


def test_tokens_that_run_out_in_the_answer_are_told_with_the_cure() -> None:
    tokens = len(TOKENIZER.encode(REASONED))
    note = f"the answer is cut off after {tokens - 2} tokens: raise --max-new-tokens"
    assert printed(REASONED, limit=tokens - 2) == ("It is 46\n", [note])
    assert printed(REASONED, limit=tokens) == ("It is 46.\n", [])


@pytest.mark.parametrize(
    ("generated", "left"),
    [
        ("", 1),  # another token ended it
        ("<|end|>", 0),
        ("<|end|><|start|>assistant<|channel|>analysis<|message|>Hm", 0),
    ],
)
def test_an_answer_that_is_whole_is_not_cut_off(generated: str, left: int) -> None:
    generated = f"<|channel|>final<|message|>Hi!{generated}"
    limit = len(TOKENIZER.encode(generated)) + left
    assert printed(generated, limit=limit) == ("Hi!\n", [])


def test_an_end_without_an_answer_is_told() -> None:
    analysis = "<|channel|>analysis<|message|>Hm.<|return|>"
    note = "the model ended without an answer"
    for limit in (1000, len(TOKENIZER.encode(analysis))):
        with_cure = f"{note}: see what it said with --show-reasoning"
        assert printed(analysis, limit=limit) == ("", [with_cure])
    assert printed(analysis, show_reasoning=True) == ("[analysis]\nHm.\n", [note])


def test_an_empty_answer_is_an_empty_line() -> None:
    assert printed("<|channel|>final<|message|><|return|>") == ("\n", [])


@pytest.mark.parametrize(
    "generated",
    [
        "Hi!<|return|>",
        "<|channel|>finalHi!<|return|>",
        "<|channel|>final to=user<|message|>Hi!<|return|>",
        "<|channel|>other<|message|>Hi!<|return|>",
        "<|message|>Hi!<|return|>",
    ],
)
def test_what_names_no_channel_is_an_answer(generated: str) -> None:
    assert printed(generated) == ("Hi!\n", [])
    title = "other" if "other" in generated else "final"
    assert printed(generated, show_reasoning=True) == (f"[{title}]\nHi!\n", [])


def test_answers_that_follow_one_another_have_lines_of_their_own() -> None:
    two = "<|channel|>final<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>Two."
    assert printed(two + "<|return|>") == ("One.\nTwo.\n", [])


def test_what_others_are_made_to_say_is_no_answer() -> None:
    made_up = (
        "<|channel|>final<|message|>Hi!<|end|><|start|>user to=functions.f<|message|>Ho!<|return|>"
    )
    assert printed(made_up) == ("Hi!\n", [])
    assert printed(made_up, show_reasoning=True) == ("[final]\nHi!\n\n[user]\nHo!\n", [])


def test_plain_text_is_printed_without_special_tokens_as_it_comes() -> None:
    pieces: list[str] = []
    answer = PlainAnswer(TOKENIZER, pieces.append)
    for token_id in TOKENIZER.encode("é<|channel|>a<|return|>"):
        answer.add([token_id])
    answer.finish()
    assert pieces == ["", "é", "", "a", "", "", "\n"]
