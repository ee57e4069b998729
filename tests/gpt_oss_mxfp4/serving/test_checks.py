"""Requests that are wrong: which of them, with which status, and what is told."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4.serving.checks import CHECKS, INTEGERS, NUMBERS, check_request
from gpt_oss_mxfp4.serving.errors import Rejected

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
VOCAB = 1000


def rejection(path: str, request: dict[str, Any]) -> Rejected:
    with pytest.raises(Rejected) as refused:
        check_request(path, request, "demo", VOCAB)
    return refused.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": "hot"}, "`temperature` must be a number, not a string."),
        ({"temperature": True}, "`temperature` must be a number, not a boolean."),
        ({"temperature": -0.1}, "`temperature` must be between 0 and 2, got -0.1."),
        ({"temperature": 2.5}, "`temperature` must be between 0 and 2, got 2.5."),
        ({"temperature": 10**400}, "`temperature` must be between 0 and 2, got more."),
        ({"temperature": float("inf")}, "`temperature` must be between 0 and 2, got more."),
        ({"top_p": 1.5}, "`top_p` must be between 0 and 1, got 1.5."),
        ({"presence_penalty": -3}, "`presence_penalty` must be between -2 and 2, got -3."),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be between 0.01 and 100, got 0."),
        ({"max_tokens": -1}, "`max_tokens` must be between 1 and 2147483647, got -1."),
        ({"max_tokens": 0}, "`max_tokens` must be between 1 and 2147483647, got 0."),
        ({"max_tokens": 1.5}, "`max_tokens` must be a whole number, not a number."),
        ({"max_tokens": "5"}, "`max_tokens` must be a whole number, not a string."),
        ({"max_tokens": True}, "`max_tokens` must be a whole number, not a boolean."),
        ({"max_tokens": 2**31}, "`max_tokens` must be between 1 and 2147483647, got 2147483648."),
        ({"max_tokens": 10**4000}, "`max_tokens` must be between 1 and 2147483647, got more."),
        (
            {"min_tokens": 6, "max_tokens": 5},
            "`min_tokens` must be at most `max_tokens`, 5.",
        ),
        (
            {"min_tokens": 6, "max_completion_tokens": 5, "max_tokens": 7},
            "`min_tokens` must be at most `max_tokens`, 5.",
        ),
        ({"top_k": -2}, "`top_k` must be between -1 and 2147483647, got -2."),
        ({"seed": -1}, "`seed` must be between 0 and 9223372036854775807, got -1."),
        ({"stream": "yes"}, "`stream` must be true or false, not a string."),
        ({"stop": ""}, "`stop` must be a string or a list of strings, none empty."),
        ({"stop": ["a", 1]}, "`stop` must be a string or a list of strings, none empty."),
        ({"stop": {"a": 1}}, "`stop` must be a string or a list of strings, none empty."),
        (
            {"stop_token_ids": [VOCAB]},
            "`stop_token_ids` must hold token ids between 0 and 999, got 1000.",
        ),
        (
            {"stop_token_ids": [-1]},
            "`stop_token_ids` must hold token ids between 0 and 999, got -1.",
        ),
        ({"stop_token_ids": 5}, "`stop_token_ids` must be a list of token ids, not a number."),
        ({"stop_token_ids": "a"}, "`stop_token_ids` must be a list of token ids, not a string."),
        ({"dkv_cache_hint": {"a": 1}}, "`dkv_cache_hint` is not supported here."),
        ({"model": 5}, "`model` must be the model's name, `demo`, not a number."),
        ({"model": ""}, "`model` must be the model's name, `demo`, not a string."),
    ],
)
@pytest.mark.parametrize("path", CHECKS)
def test_a_field_that_is_wrong_is_named_with_what_it_must_be(
    path: str, fields: dict[str, Any], message: str
) -> None:
    whole = {"model": "demo", "messages": MESSAGES, "prompt": "Hi"}
    refused = rejection(path, whole | fields)
    assert (refused.status, refused.message) == (400, message)
    assert refused.param == next(iter(fields))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_tokens", 1, 2**31 - 1),
        ("max_completion_tokens", 1, 2**31 - 1),
        ("min_tokens", 0, 2**31 - 1),
        ("top_k", -1, 2**31 - 1),
        ("logprobs", 0, 7),
        ("top_logprobs", 0, 7),
        ("seed", 0, 2**63 - 1),
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("min_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
        ("repetition_penalty", 0.01, 100),
    ],
)
def test_the_ends_of_a_range_are_taken_and_nothing_beyond(
    name: str, low: float, high: float
) -> None:
    whole = {"model": "demo", "prompt": "Hi"}
    for value in (low, high):
        check_request(COMPLETION, whole | {name: value}, "demo", VOCAB)
    for value in (low - 1, high + 1):
        assert rejection(COMPLETION, whole | {name: value}).param == name


def test_a_model_that_is_not_served_is_not_found() -> None:
    refused = rejection(CHAT, {"model": "gpt-5", "messages": MESSAGES})
    assert (refused.status, refused.code) == (404, "model_not_found")
    assert refused.message == "The model `gpt-5` does not exist; this server has `demo`."
    assert refused.envelope["error"] == {
        "message": refused.message,
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "`messages` must be a list of messages, not null."),
        ("Hi", "`messages` must be a list of messages, not a string."),
        ([], "`messages` must hold at least one message."),
        (["Hi"], "`messages[0]` must be an object, not a string."),
        (
            [{"content": "Hi"}],
            "`messages[0].role` must be one of system, developer, user, assistant, tool; got null.",
        ),
        (
            [*MESSAGES, {"role": "root", "content": "Hi"}],
            "`messages[1].role` must be one of system, developer, user, assistant, tool; got `root`.",
        ),
        (
            [{"role": ["user"], "content": "Hi"}],
            "`messages[0].role` must be one of system, developer, user, assistant, tool; got a list.",
        ),
        (
            [{"role": "user"}],
            "`messages[0].content` must be a string or a list of text parts, not null.",
        ),
        (
            [{"role": "user", "content": 5}],
            "`messages[0].content` must be a string or a list of text parts, not a number.",
        ),
        (
            [{"role": "user", "content": [5]}],
            "`messages[0].content[0]` must be an object, not a number.",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "`messages[0].content[0].type` must be `text`, all this model reads; got `image_url`.",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": None}]}],
            "`messages[0].content[0].text` must be a string, not null.",
        ),
        (
            [{"role": "assistant", "tool_calls": [{}] * 129}],
            "`messages[0].tool_calls` must hold at most 128 calls.",
        ),
        (
            [{"role": "tool", "content": "5"}],
            "`messages[0].tool_call_id` must be a string, not null.",
        ),
    ],
)
def test_messages_that_are_wrong_are_named_with_their_place(messages: Any, message: str) -> None:
    refused = rejection(CHAT, {"model": "demo", "messages": messages})
    assert (refused.status, refused.message) == (400, message)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("f", "`tools` must be a list of functions, not a string."),
        (["f"], "`tools[0]` must be an object, not a string."),
        ([{"type": "custom"}], "`tools[0].type` must be `function`; got `custom`."),
        ([{"function": {"name": "f"}}], "`tools[0].type` must be `function`; got null."),
        ([{"type": "function"}], "`tools[0].function` must be an object, not null."),
        (
            [{"type": "function", "function": {}}],
            "`tools[0].function.name` must be a string, not null.",
        ),
        (
            [{"type": "function", "function": {"name": "f", "parameters": []}}],
            "`tools[0].function.parameters` must be an object, not a list.",
        ),
        (
            [{"type": "function", "function": {"name": "f", "description": 5}}],
            "`tools[0].function.description` must be a string, not a number.",
        ),
    ],
)
def test_tools_that_are_wrong_are_named_with_their_place(tools: Any, message: str) -> None:
    refused = rejection(CHAT, {"model": "demo", "messages": MESSAGES, "tools": tools})
    assert (refused.status, refused.message) == (400, message)


@pytest.mark.parametrize(
    "choice",
    [
        *("bogus", 5, [], {}, {"type": "function"}, {"type": "custom"}),
        {"type": "custom", "function": {"name": "f"}},
        {"type": "function", "function": {"name": 5}},
    ],
)
def test_a_tool_choice_that_is_wrong_is_told(choice: Any) -> None:
    refused = rejection(CHAT, {"model": "demo", "messages": MESSAGES, "tool_choice": choice})
    assert refused.message == (
        "`tool_choice` must be none, auto, required, or name a function as "
        '{"type": "function", "function": {"name": NAME}}.'
    )
    assert refused.param == "tool_choice"


def test_a_chat_asks_for_log_probabilities_or_not() -> None:
    refused = rejection(CHAT, {"model": "demo", "messages": MESSAGES, "logprobs": 1})
    assert refused.message == "`logprobs` must be true or false, not a number."


@pytest.mark.parametrize(
    ("effort", "got"),
    [("extreme", "`extreme`"), ("none", "`none`"), (5, "a number"), ([], "a list")],
)
def test_an_effort_that_gpt_oss_does_not_have_is_told(effort: Any, got: str) -> None:
    refused = rejection(CHAT, {"model": "demo", "messages": MESSAGES, "reasoning_effort": effort})
    assert refused.message == f"`reasoning_effort` must be low, medium or high; got {got}."
    assert refused.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "`prompt` must be a string, a list of strings or token ids, not null."),
        ("", "`prompt` must not be empty."),
        ([], "`prompt` must not be empty."),
        (["a", ""], "`prompt` must not be empty."),
        ([[]], "`prompt` must not be empty."),
        (["a", 1], "`prompt` must be a string, a list of strings or token ids, not a number."),
        (["a", [1]], "`prompt` must be a string, a list of strings or token ids, not a list."),
        ([{"a": 1}], "`prompt` must be a string, a list of strings or token ids, not an object."),
        ([True], "`prompt` must be a string, a list of strings or token ids, not a boolean."),
        ({"a": 1}, "`prompt` must be a string, a list of strings or token ids, not an object."),
        ([1, "a"], "`prompt` must be a list of token ids, not a string."),
        ([1, True], "`prompt` must be a list of token ids, not a boolean."),
        ([1000], "`prompt` must hold token ids between 0 and 999, got 1000."),
        ([-1], "`prompt` must hold token ids between 0 and 999, got -1."),
        (["a"] * 129, "`prompt` must hold at most 128 prompts."),
        ([[VOCAB]] * 129, "`prompt` must hold at most 128 prompts."),
        (
            [[1], [2**70]],
            "`prompt` must hold token ids between 0 and 999, got 1180591620717411303424.",
        ),
    ],
)
def test_prompts_that_are_wrong_are_told(prompt: Any, message: str) -> None:
    refused = rejection(COMPLETION, {"model": "demo", "prompt": prompt})
    assert (refused.status, refused.message, refused.param) == (400, message, "prompt")


def test_a_stream_has_one_prompt() -> None:
    refused = rejection(COMPLETION, {"model": "demo", "prompt": ["a", "b"], "stream": True})
    assert refused.message == "`prompt` must be a single one where `stream` is true."


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": MESSAGES},
        {"messages": MESSAGES, "temperature": None, "max_tokens": None, "n": None, "stop": None},
        {"messages": MESSAGES, "stop": "a", "max_tokens": 5},
        {"messages": MESSAGES, "min_tokens": 5, "max_tokens": 5},
        {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": MESSAGES, "tools": None, "tool_choice": "auto", "reasoning_effort": "low"},
        {"messages": MESSAGES, "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {
            "messages": MESSAGES,
            "stop": ["a"] * 16,
            "stream": True,
            "logprobs": True,
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [{}] * 128}, *MESSAGES]},
        {"messages": [*MESSAGES, {"role": "tool", "tool_call_id": "1", "content": "5"}]},
    ],
)
def test_what_openais_clients_send_is_taken(request_: dict[str, Any]) -> None:
    check_request(CHAT, {"model": "demo"} | request_, "demo", VOCAB)


@pytest.mark.parametrize(
    "prompt", ["a", ["a", "b"], [0, 999], [0] * 129, [[1], [2, 3]], ["a"] * 128]
)
def test_all_four_kinds_of_prompts_are_taken(prompt: Any) -> None:
    check_request(COMPLETION, {"model": "demo", "prompt": prompt, "logprobs": 7}, "demo", VOCAB)


@pytest.mark.parametrize("prompt", ["a", ["a"], [0, 999], [[1]]])
def test_a_single_prompt_may_be_streamed(prompt: Any) -> None:
    check_request(COMPLETION, {"model": "demo", "prompt": prompt, "stream": True}, "demo", VOCAB)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        *(*INTEGERS, *NUMBERS, "stop", "stop_token_ids", "stream", "messages", "prompt"),
        *("tool_choice", "reasoning_effort"),
    ]
)


@given(st.sampled_from(list(CHECKS)), st.dictionaries(FIELDS, ANYTHING, max_size=4))
def test_any_fields_are_taken_or_refused(path: str, fields: dict[str, Any]) -> None:
    whole = {"model": "demo", "messages": MESSAGES, "prompt": "Hi"}
    with contextlib.suppress(Rejected):
        check_request(path, whole | fields, "demo", VOCAB)
