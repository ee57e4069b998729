"""What MAX would take and ignore is refused, with the cure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpt_oss_mxfp4.endpoint.errors import FieldError
from gpt_oss_mxfp4.endpoint.requests import Sampler, check_chat, check_completion


def chat(**fields: Any) -> Any:
    defaults = {"top_logprobs": None, "logprobs": None, "reasoning": None, "tool_choice": None}
    return SimpleNamespace(**{**defaults, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1, "logit_bias": {}, "verbosity": "medium", "modalities": ["text"]},
        {"frequency_penalty": 0.0, "presence_penalty": 0, "repetition_penalty": 1.0},
        {"min_tokens": 0, "min_p": 0.0},
        {"logprobs": True, "top_logprobs": 3},
        {"tool_choice": "required", "stop": ["x"] * 16},
        {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
        {"reasoning": SimpleNamespace(max_tokens=None, exclude=None)},
    ],
)
def test_what_is_answered_as_asked_passes(fields: dict[str, Any]) -> None:
    check_chat(chat(**fields), ["clock"], Sampler())


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"n": 2}, "n: must be 1, anything else is not supported"),
        ({"logit_bias": {"1": 2}}, "logit_bias: must be left out, anything else is not supported"),
        ({"functions": []}, "functions: must be left out, anything else is not supported"),
        ({"stop": ["x"] * 17}, "stop: must hold at most 16 strings"),
        ({"verbosity": "low"}, "verbosity: must be medium, anything else is not supported"),
        ({"top_logprobs": 3}, "top_logprobs: must be left out without logprobs"),
        (
            {"reasoning": SimpleNamespace(max_tokens=9, exclude=None)},
            "reasoning: must have no max_tokens or exclude, which are not supported",
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice: must name a function among tools",
        ),
        (
            {"reasoning": SimpleNamespace(max_tokens=None, exclude=True)},
            "reasoning: must have no max_tokens or exclude, which are not supported",
        ),
        *(
            (
                {"tool_choice": choice},
                "tool_choice: must be none, auto, required or name a function",
            )
            for choice in (
                {"type": "allowed_tools"},
                {"type": "custom", "function": {"name": "clock"}},
            )
        ),
    ],
)
def test_what_would_be_ignored_is_refused(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as raised:
        check_chat(chat(**fields), ["clock"], Sampler())
    assert str(raised.value) == error
    assert raised.value.field == next(iter(fields))


IGNORED: list[tuple[str, float, str]] = [
    ("frequency_penalty", 0.5, "0"),
    ("presence_penalty", -2, "0"),
    ("repetition_penalty", 1.3, "1"),
    ("repetition_penalty", 0, "1"),
    ("min_tokens", 1, "0"),
    ("min_p", 0.1, "0"),
]


@pytest.mark.parametrize(("field", "value", "neutral"), IGNORED)
def test_what_the_sampler_ignores_is_refused(field: str, value: float, neutral: str) -> None:
    with pytest.raises(FieldError) as raised:
        check_chat(chat(**{field: value}), [], Sampler())
    assert str(raised.value) == f"{field}: must be {neutral}, anything else is not supported"
    with pytest.raises(FieldError):
        check_completion(SimpleNamespace(**{field: value}), Sampler())


@pytest.mark.parametrize(("field", "value", "neutral"), IGNORED)
def test_what_the_sampler_heeds_passes(field: str, value: float, neutral: str) -> None:
    heeding = Sampler(penalties=True, min_tokens=True, min_p=True)
    check_chat(chat(**{field: value}), [], heeding)
    check_completion(SimpleNamespace(**{field: value}), heeding)


def test_log_probabilities_are_refused_where_there_are_none() -> None:
    without = Sampler(log_probabilities=False)
    check_chat(chat(logprobs=False), [], without)
    check_chat(chat(logprobs=True), [], Sampler())
    with pytest.raises(FieldError, match=r"^logprobs: must be left out, anything else"):
        check_chat(chat(logprobs=True), [], without)
    with pytest.raises(FieldError, match=r"^logprobs: must be left out, anything else"):
        check_completion(SimpleNamespace(logprobs=1), without)


def test_a_call_needs_tools() -> None:
    with pytest.raises(FieldError) as raised:
        check_chat(chat(tool_choice="required"), [], Sampler())
    assert str(raised.value) == "tool_choice: must be left out where no tools are given"


def test_completions_are_checked_alike() -> None:
    check_completion(SimpleNamespace(best_of=1, echo=False, suffix=None), Sampler())
    with pytest.raises(FieldError) as raised:
        check_completion(SimpleNamespace(echo=True), Sampler())
    assert str(raised.value) == "echo: must be left out, anything else is not supported"
