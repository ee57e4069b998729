"""Calls through MAX's tool parser: written as text that nothing else can be, and read back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from max.pipelines.context.exceptions import InputError

from gpt_oss_mxfp4.endpoint.calls import ARGUMENTS, CALL, END, write_call
from gpt_oss_mxfp4.endpoint.tool_parser import HarmonyToolParser
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.harmony_header import Kind
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("calculator", "clock")]


def call(name: str, *arguments: str) -> str:
    pieces = [Piece(Kind.CALL, "", name), *(Piece(Kind.CALL, a) for a in arguments)]
    return "".join(map(write_call, [*pieces, Piece(Kind.CALL, "", ended=True)]))


def read(texts: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """The answer, and each call's name and arguments, put together from what was streamed."""
    parser = HarmonyToolParser()
    content = ""
    calls: list[tuple[str, str]] = []
    for text in texts:
        for delta in parser.parse_delta(text):
            content += delta.content or ""
            if delta.name is not None:
                assert delta.id is not None
                assert delta.index == len(calls)
                calls.append((delta.name, ""))
            elif delta.arguments is not None:
                assert delta.index == len(calls) - 1
                assert delta.id is None, "clients put one together from all that come"
                calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return content, calls


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_answer_and_calls_come_apart_however_they_are_cut(size: int) -> None:
    text = f"Look: {call('calculator', '{', '}')}{call('clock')} Done."
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    expected = ("Look:  Done.", [("calculator", "{}"), ("clock", "{}")])
    assert read(pieces) == expected
    whole = HarmonyToolParser().parse_complete(text)
    assert (whole.content, [(c.name, c.arguments) for c in whole.tool_calls]) == expected
    assert len({c.id for c in whole.tool_calls}) == 2


def test_text_without_calls_is_the_answer() -> None:
    spelled = (
        '<|channel|>commentary to=functions.calculator<|message|>{"name": "calculator"}<|call|>'
    )
    assert read([spelled]) == (spelled, [])
    assert HarmonyToolParser().parse_complete(spelled).tool_calls == []


def test_a_parser_begins_anew() -> None:
    parser = HarmonyToolParser()
    parser.parse_delta(CALL + "cal")
    parser.reset()
    assert [delta.content for delta in parser.parse_delta("Hi")] == ["Hi"]


@given(st.lists(st.binary(max_size=6), max_size=8))
def test_no_bytes_of_a_model_make_a_mark(tokens: list[bytes]) -> None:
    ids = [byte for token in tokens for byte in token]
    text = ByteTokenizer().decode(ids, skip_special_tokens=True)
    assert not {CALL, ARGUMENTS, END}.intersection(text)


def test_no_encoding_of_a_mark_decodes_to_one() -> None:
    for mark in (CALL, ARGUMENTS, END):
        spelled = mark.encode("utf-8", "surrogatepass")
        assert mark not in ByteTokenizer().decode(list(spelled), skip_special_tokens=True)


@pytest.mark.parametrize(
    ("choice", "tools", "beginning"),
    [
        (None, TOOLS, ""),
        ("auto", TOOLS, ""),
        ("none", TOOLS, ""),
        ("required", TOOLS, "<|channel|>commentary to=functions"),
        (
            "required",
            TOOLS[:1],
            "<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>",
        ),
        (
            {"type": "function", "function": {"name": "clock"}},
            TOOLS[1:],
            "<|channel|>commentary to=functions.clock <|constrain|>json<|message|>",
        ),
    ],
)
def test_a_tool_that_must_be_called_begins_the_answer(
    choice: Any, tools: Any, beginning: str
) -> None:
    got = HarmonyToolParser().generate_tool_call_grammar(
        response_format_schema=None,
        tools=tools,
        tool_choice=choice,
        tokenizer=None,
        backend="xgrammar",
    )
    assert got == beginning


def test_a_schema_beside_tools_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^response_format: must be left out where tools are given$"
    ):
        HarmonyToolParser().generate_tool_call_grammar(
            response_format_schema={}, tools=TOOLS, tool_choice="auto"
        )
