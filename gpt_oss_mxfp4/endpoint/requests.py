"""What of an OpenAI request is refused, because MAX takes it and then ignores it. Nothing here imports MAX."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gpt_oss_mxfp4.endpoint.errors import FieldError
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


_PENALTIES: Mapping[str, _Values] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
}
_MIN_TOKENS: Mapping[str, _Values] = {"min_tokens": (0,)}
_MIN_P: Mapping[str, _Values] = {"min_p": (0,)}
_LOG_PROBABILITIES: Mapping[str, _Values] = {"logprobs": (False,)}


@dataclass(frozen=True)
class Sampler:
    """What a server's sampler heeds beside temperature, top_k, top_p and seed; it ignores the rest.

    Args:
        penalties: for frequency, presence and repetition.
        min_tokens: before an answer may end.
        min_p: the least probability of a token, as a share of the likeliest's.
        log_probabilities: whether it tells them.
    """

    penalties: bool = False
    min_tokens: bool = False
    min_p: bool = False
    log_probabilities: bool = True

    @property
    def ignored(self) -> Mapping[str, _Values]:
        """Fields that are ignored, as in ``_EITHER``."""
        ignored: dict[str, _Values] = {}
        for heeded, fields in (
            (self.penalties, _PENALTIES),
            (self.min_tokens, _MIN_TOKENS),
            (self.min_p, _MIN_P),
            (self.log_probabilities, _LOG_PROBABILITIES),
        ):
            ignored |= {} if heeded else fields
        return ignored


def check_completion(request: Any, sampler: Sampler) -> None:
    """Checks a request for ``/v1/completions``.

    Args:
        request: with OpenAI's fields as attributes.
        sampler: of the server.

    Raises:
        FieldError: something in it would be ignored.
    """
    _check_fields(request, {**_COMPLETION, **sampler.ignored})


def check_chat(request: Any, tools: Collection[str], sampler: Sampler) -> None:
    """Checks a request for ``/v1/chat/completions``.

    Args:
        request: with OpenAI's fields as attributes.
        tools: names of those that it offers.
        sampler: of the server.

    Raises:
        FieldError: something in it would be ignored.
    """
    _check_fields(request, {**_CHAT, **sampler.ignored})
    if request.top_logprobs and not request.logprobs:
        raise FieldError("top_logprobs: must be left out without logprobs")
    reasoning = request.reasoning
    if reasoning is not None and (reasoning.max_tokens is not None or reasoning.exclude):
        raise FieldError("reasoning: must have no max_tokens or exclude, which are not supported")
    choice = request.tool_choice
    if choice in (None, "auto", "none"):
        return
    if choice == "required":
        if not tools:
            raise FieldError("tool_choice: must be left out where no tools are given")
        return
    name = choice.get("function", {}).get("name") if choice.get("type") == "function" else None
    if name is None:
        raise FieldError("tool_choice: must be none, auto, required or name a function")
    if name not in tools:
        raise FieldError("tool_choice: must name a function among tools")


def _check_fields(request: Any, ignored: Mapping[str, _Values]) -> None:
    stop = getattr(request, "stop", None)
    if isinstance(stop, list) and len(stop) > MAX_STRINGS:
        raise FieldError(f"stop: must hold at most {MAX_STRINGS} strings")
    for field, harmless in ignored.items():
        value = getattr(request, field, None)
        if value is None or value in harmless:
            continue
        told = harmless and (harmless[0] or type(harmless[0]) is int)
        cure = f"be {harmless[0]}" if told else "be left out"
        raise FieldError(f"{field}: must {cure}, anything else is not supported")
