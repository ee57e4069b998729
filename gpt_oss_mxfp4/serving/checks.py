"""What is wrong with a request for text, before MAX sees it.

MAX 26.7.0 answers some of these with 500 or with "Value error.", ignores others silently, and a token id that the model
does not have ends its worker process (NOTES F65). What it refuses well, a field it does not know say, is left to it;
what it would ignore, to the endpoint's hooks (:mod:`gpt_oss_mxfp4.endpoint.requests`), which ``max serve`` has as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpt_oss_mxfp4.endpoint.messages import EFFORTS
from gpt_oss_mxfp4.options import MAX_TOKENS
from gpt_oss_mxfp4.serving.errors import (
    Rejected,
    number,
    out_of_range,
    shortened,
    wrong_type,
    wrong_value,
)
from gpt_oss_mxfp4.serving.messages import check_messages
from gpt_oss_mxfp4.serving.tools import check_tool_choice, check_tools

Request = Mapping[str, Any]

MAX_LOGPROBS = 7
"""Likeliest tokens that MAX's logits graph can report; more would end its worker."""

MAX_PROMPTS = 128
"""Of one request: MAX makes them all before anybody else is answered."""

INTEGERS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, MAX_TOKENS),
    "max_completion_tokens": (1, MAX_TOKENS),
    "min_tokens": (0, MAX_TOKENS),
    "top_k": (-1, MAX_TOKENS),
    "top_logprobs": (0, MAX_LOGPROBS),
    "seed": (0, 2**63 - 1),
}
"""Lowest and highest value of whole numbers; null is the default of each."""

NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
}
"""Lowest and highest value of numbers; null is the default of each."""

BOOLEANS = ("stream", "echo", "ignore_eos", "return_token_ids")

UNSUPPORTED = ("dkv_cache_hint", "target_endpoint", "prompt_tokens")
"""Fields that only MAX's own routers may send."""


def check_request(path: str, request: Request, model: str, vocab_size: int) -> None:
    """Checks a request that generates text.

    Args:
        path: its path, a key of :data:`CHECKS`.
        request: its body.
        model: the name of the model that is served.
        vocab_size: number of its tokens.

    Raises:
        Rejected: the first fault found.
    """
    _check_model(request, model)
    for name, (low, high) in INTEGERS.items():
        _check_integer(request, name, low, high)
    for name, (least, most) in NUMBERS.items():
        _check_number(request, name, least, most)
    for name in BOOLEANS:
        if not isinstance(request.get(name), bool | None):
            raise wrong_type(name, "true or false", request[name])
    for name in UNSUPPORTED:
        if request.get(name):
            raise Rejected(400, f"`{name}` is not supported here.", name)
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is not None and (request.get("min_tokens") or 0) > limit:
        raise Rejected(400, f"`min_tokens` must be at most `max_tokens`, {limit}.", "min_tokens")
    _check_stop(request)
    _check_tokens("stop_token_ids", request.get("stop_token_ids") or [], vocab_size)
    CHECKS[path](request, vocab_size)


def _check_model(request: Request, model: str) -> None:
    name = request.get("model")
    if not isinstance(name, str) or not name:
        raise wrong_type("model", f"the model's name, `{model}`", name)
    if name != model:
        raise Rejected(
            404,
            f"The model `{shortened(name)}` does not exist; this server has `{model}`.",
            "model",
            "model_not_found",
        )


def _check_integer(request: Request, name: str, low: int, high: int) -> None:
    value = request.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "a whole number", value)
    if not low <= value <= high:
        raise out_of_range(name, low, high, value)


def _check_number(request: Request, name: str, low: float, high: float) -> None:
    value = request.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a number", value)
    if not low <= value <= high:  # 1e999 is infinite
        raise out_of_range(name, low, high, value)


def _check_stop(request: Request) -> None:
    stop = request.get("stop")
    if stop is None:
        return
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise Rejected(400, "`stop` must be a string or a list of strings, none empty.", "stop")


def _check_tokens(name: str, tokens: object, vocab_size: int) -> None:
    if not isinstance(tokens, list):
        raise wrong_type(name, "a list of token ids", tokens)
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise wrong_type(name, "a list of token ids", token)
        if not 0 <= token < vocab_size:
            raise Rejected(
                400,
                f"`{name}` must hold token ids between 0 and {vocab_size - 1}, got {number(token)}.",
                name,
            )


def _check_completion(request: Request, vocab_size: int) -> None:
    _check_integer(request, "logprobs", 0, MAX_LOGPROBS)
    prompt = request.get("prompt")
    if isinstance(prompt, str):
        prompts: list[Any] = [prompt]
    elif isinstance(prompt, list) and prompt:
        tokens = isinstance(prompt[0], int) and not isinstance(prompt[0], bool)
        prompts = [prompt] if tokens else prompt
    elif prompt == []:
        raise Rejected(400, "`prompt` must not be empty.", "prompt")
    else:
        raise wrong_type("prompt", "a string, a list of strings or token ids", prompt)
    if len(prompts) > MAX_PROMPTS:
        raise Rejected(400, f"`prompt` must hold at most {MAX_PROMPTS} prompts.", "prompt")
    for one in prompts:
        if not one:
            raise Rejected(400, "`prompt` must not be empty.", "prompt")
        if type(one) is not type(prompts[0]) or not isinstance(one, str | list):
            raise wrong_type("prompt", "a string, a list of strings or token ids", one)
        if isinstance(one, list):
            _check_tokens("prompt", one, vocab_size)
    if request.get("stream") and len(prompts) > 1:
        raise Rejected(400, "`prompt` must be a single one where `stream` is true.", "prompt")


def _check_chat(request: Request, vocab_size: int) -> None:
    if not isinstance(request.get("logprobs"), bool | None):
        raise wrong_type("logprobs", "true or false", request["logprobs"])
    check_messages(request.get("messages"))
    if request.get("tools") is not None:
        check_tools(request["tools"])
    check_tool_choice(request.get("tool_choice"))
    _check_effort(request.get("reasoning_effort"))


def _check_effort(effort: object) -> None:
    """Pydantic would list what MAX has names for, most of which no gpt-oss knows."""
    if effort is None or effort in EFFORTS:
        return
    raise wrong_value("reasoning_effort", "low, medium or high", effort)


CHECKS: dict[str, Callable[[Request, int], None]] = {
    "/v1/chat/completions": _check_chat,
    "/v1/completions": _check_completion,
}
"""What is checked beyond the fields that all requests for text share, by path."""
