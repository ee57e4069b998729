"""Messages made what a gpt-oss template takes, whole lists, and those that it would lose text of."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_oss_mxfp4.endpoint.errors import FieldError
from gpt_oss_mxfp4.endpoint.messages import (
    messages_for_template,
    tools_for_template,
    variables_for_template,
)

USER = {"role": "user", "content": "12 * 34?"}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def tool_call(name: str, id_: str | None = None) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": {}}}


def result(text: str, id_: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": id_}


def test_a_plain_chat_stays_as_it_is() -> None:
    chat = [system("Be brief."), USER, {"role": "assistant", "content": "408"}, USER]
    assert messages_for_template(chat) == chat


def test_instructions_that_come_first_become_one_message() -> None:
    chat = [system("Be brief."), system("Be kind."), USER]
    assert messages_for_template(chat) == [system("Be brief.\n\nBe kind."), USER]


def test_reasoning_is_called_thinking() -> None:
    message = {"role": "assistant", "content": "408", "reasoning_content": "Easy."}
    assert messages_for_template([USER, message])[1] == {
        "role": "assistant",
        "content": "408",
        "thinking": "Easy.",
    }


def test_reasoning_and_what_is_said_beside_a_call_become_one_text() -> None:
    calls = [tool_call("calculator", "1")]
    message = {
        "role": "assistant",
        "content": "I shall calculate.",
        "reasoning_content": "A product.",
        "tool_calls": calls,
    }
    assert messages_for_template([USER, message, result("408", "1")]) == [
        USER,
        {
            "role": "assistant",
            "content": "",
            "thinking": "A product.\nI shall calculate.",
            "tool_calls": calls,
        },
        result("408", "1"),
    ]


def test_each_of_several_calls_is_followed_by_its_result() -> None:
    one, two = tool_call("calculator", "1"), tool_call("clock", "2")
    message = {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Both.",
        "tool_calls": [one, two],
    }
    assert messages_for_template(
        [USER, message, result("noon", "2"), result("408", "1"), USER]
    ) == [
        USER,
        {"role": "assistant", "content": "", "thinking": "Both.", "tool_calls": [one]},
        result("408", "1"),
        {"role": "assistant", "content": "", "tool_calls": [two]},
        result("noon", "2"),
        USER,
    ]


@pytest.mark.parametrize(
    ("chat", "error"),
    [
        ([USER, system("Be brief.")], "messages: system and developer messages must come first"),
        (
            [{"role": "function", "content": "408"}],
            "messages: a role must be system, developer, user, assistant or tool, got function",
        ),
        (
            [{"role": "assistant", "content": "", "tool_calls": [tool_call("a"), tool_call("b")]}],
            "messages: each of several tool_calls must have an id of its own",
        ),
    ],
)
def test_a_chat_that_a_template_would_lose_text_of_is_refused(
    chat: list[dict[str, Any]], error: str
) -> None:
    with pytest.raises(FieldError) as raised:
        messages_for_template(chat)
    assert str(raised.value) == error


def test_a_tool_without_a_description_has_an_empty_one() -> None:
    [tool] = tools_for_template(
        [{"type": "function", "function": {"name": "f", "description": None}}]
    )
    assert tool == {"type": "function", "function": {"name": "f", "description": ""}}


@pytest.mark.parametrize("choice", ["enum", "oneOf"])
@pytest.mark.parametrize(
    ("default", "text"),
    [(None, "null"), (1, "1"), (True, "true"), ("a", "a"), (["é"], '["\\u00e9"]')],
)
def test_a_default_beside_a_choice_is_text(choice: str, default: object, text: str) -> None:
    """The published template adds it to a text there, and there alone."""

    def tool(told: object) -> dict[str, Any]:
        properties = {
            "chosen": {choice: [None, "a"], "default": told},
            "free": {"type": "integer", "default": 1},
            "default": {"type": "array", "items": {choice: ["a"], "default": told}},
            choice: {"type": "string"},
        }
        parameters = {"type": "object", "properties": properties}
        function = {"name": "f", "description": "", "parameters": parameters}
        return {"type": "function", "function": function}

    assert tools_for_template([tool(default)]) == [tool(text)]


def test_variables_reach_the_template_without_switches_that_gpt_oss_lacks() -> None:
    variables = {"reasoning_effort": "high", "thinking": True, "enable_thinking": True, "x": 1}
    assert variables_for_template(variables, ["tools"]) == {"reasoning_effort": "high", "x": 1}


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"reasoning_effort": "none"}, "reasoning_effort: must be low, medium or high, got none"),
        (
            {"enable_thinking": False},
            "reasoning_effort: must be low, medium or high, reasoning turned off",
        ),
        (
            {"tools": [], "chat_template": ""},
            "chat_template_kwargs: must not set chat_template, tools, which no template reads",
        ),
    ],
)
def test_variables_that_no_template_reads_are_refused(
    variables: dict[str, Any], error: str
) -> None:
    with pytest.raises(FieldError) as raised:
        variables_for_template(variables, ["tools", "chat_template"])
    assert str(raised.value) == error
