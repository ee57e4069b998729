"""What of an OpenAI request is refused, because MAX takes it and then ignores it. Nothing here imports MAX."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gpt_oss_mxfp4.endpoint.stop_strings import MAX_STRINGS

_Values = tuple[Any, ...]

_EITHER: Mapping[str, _Values] = {
    "n": (1,),
    "logit_bias": ({},),
    "thinking_temperature": (),
}
"""Fields that are ignored, each with the values at which that makes no difference; None is always one."""

_CHAT: Mapping[str, _Values] = {
    **_EITHER,
    "audio": (),
    "function_call": (),
    "functions": (),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_split": (True,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

_COMPLETION: Mapping[str, _Values] = {
    **_EITHER,
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}


class RequestError(ValueError):
    """A request that would not be answered as it asks to be; says what of it must change."""


def check_completion(request: Any) -> None:
    """Checks a request for ``/v1/completions``.

    Args:
        request: with OpenAI's fields as attributes.

    Raises:
        RequestError: something in it would be ignored.
    """
    _check_fields(request, _COMPLETION)


def check_chat(request: Any, tools: Collection[str]) -> None:
    """Checks a request for ``/v1/chat/completions``.

    Args:
        request: with OpenAI's fields as attributes.
        tools: names of those that it offers.

    Raises:
        RequestError: something in it would be ignored.
    """
    _check_fields(request, _CHAT)
    if request.top_logprobs and not request.logprobs:
        raise RequestError("top_logprobs: must be left out without logprobs")
    reasoning = request.reasoning
    if reasoning is not None and (reasoning.max_tokens is not None or reasoning.exclude):
        raise RequestError("reasoning: must have no max_tokens or exclude, which are not supported")
    choice = request.tool_choice
    if choice in (None, "auto", "none"):
        return
    if choice == "required":
        if not tools:
            raise RequestError("tool_choice: must be left out where no tools are given")
        return
    name = choice.get("function", {}).get("name") if choice.get("type") == "function" else None
    if name is None:
        raise RequestError("tool_choice: must be none, auto, required or name a function")
    if name not in tools:
        raise RequestError("tool_choice: must name a function among tools")


def _check_fields(request: Any, ignored: Mapping[str, _Values]) -> None:
    stop = getattr(request, "stop", None)
    if isinstance(stop, list) and len(stop) > MAX_STRINGS:
        raise RequestError(f"stop: must hold at most {MAX_STRINGS} strings")
    for field, harmless in ignored.items():
        value = getattr(request, field, None)
        if value is None or value in harmless:
            continue
        cure = f"be {harmless[0]}" if harmless and harmless[0] else "be left out"
        raise RequestError(f"{field}: must {cure}, anything else is not supported")
