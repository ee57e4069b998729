"""Messages as OpenAI's API has them, made what a gpt-oss chat template takes: text that a template drops is an error.

The published template reads reasoning as ``thinking``, takes it or content beside a call and not both, one call a
message, each result behind its call, and instructions in the first message alone. Nothing here imports MAX.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gpt_oss_mxfp4.endpoint.errors import FieldError

EFFORTS = ("low", "medium", "high")
"""What ``reasoning_effort`` may be."""

Message = dict[str, Any]


def messages_for_template(messages: Sequence[Message]) -> list[Message]:
    """Gives messages that a gpt-oss template renders without losing any of them.

    Args:
        messages: with role and content, a text; tool_calls, tool_call_id and reasoning_content where they are given.

    Raises:
        FieldError: a message's role is none of the format's, or instructions come after the first message.
    """
    found = _instructions(messages)
    at = len(_leading(messages))
    while at < len(messages):
        message = messages[at]
        at += 1
        role = message["role"]
        if role == "system":
            raise FieldError("messages: system and developer messages must come first")
        if role not in ("user", "assistant", "tool"):
            raise FieldError(
                f"messages: a role must be system, developer, user, assistant or tool, got {role}"
            )
        if role != "assistant":
            found.append(message)
            continue
        results = _leading(messages, "tool", at)
        at += len(results)
        found += _assistant(message, results)
    return found


def drop_nulls(messages: object) -> bool:
    """Drops what messages say they do not have; says whether there was any.

    OpenAI's clients give an answer's message back as it came, with null for ``function_call`` and the like, and MAX
    26.7.0, whose answers have those, refuses them in a request. An answer's ``content`` may be null.

    Args:
        messages: what a request has for them, of whatever kind.
    """
    found = False
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            for key in [k for k, value in message.items() if value is None and k != "content"]:
                del message[key]
                found = True
    return found


def tools_for_template(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives tools as the published template can write them.

    It adds a description to a text, and so it does a parameter's default where that has a choice of values or types.

    Args:
        tools: as OpenAI's API has them.
    """
    return [
        {
            **tool,
            "function": {
                **_with_text_defaults(tool["function"]),
                "description": tool["function"].get("description") or "",
            },
        }
        for tool in tools
    ]


def _with_text_defaults(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_text_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _with_text_defaults(value) for name, value in schema.items()}
    chosen = any(isinstance(found.get(name), list) for name in ("enum", "oneOf"))
    if chosen and not isinstance(found.get("default", ""), str):
        found["default"] = json.dumps(found["default"])
    return found


def variables_for_template(variables: dict[str, Any], reserved: Sequence[str]) -> dict[str, Any]:
    """Gives what a request sets for its template, checked.

    Args:
        variables: of the request; MAX adds reasoning_effort, and whether to think at all.
        reserved: names that are not the template's but of what renders it.

    Raises:
        FieldError: one is reserved, or asks for reasoning that gpt-oss does not have.
    """
    taken = sorted(set(variables).intersection(reserved))
    if taken:
        raise FieldError(
            f"chat_template_kwargs: must not set {', '.join(taken)}, which no template reads"
        )
    effort = variables.get("reasoning_effort", EFFORTS[0])
    thinking = [variables.get(name, True) for name in ("enable_thinking", "thinking")]
    if effort not in EFFORTS or not all(thinking):
        got = "reasoning turned off" if effort in EFFORTS else f"got {effort}"
        raise FieldError(f"reasoning_effort: must be low, medium or high, {got}")
    return {k: v for k, v in variables.items() if k not in ("enable_thinking", "thinking")}


def _instructions(messages: Sequence[Message]) -> list[Message]:
    texts = [message["content"] for message in _leading(messages)]
    return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []


def _leading(messages: Sequence[Message], role: str = "system", begin: int = 0) -> list[Message]:
    """The messages of one role that come before any other, from one on; MAX calls a developer's the system's."""
    end = begin
    while end < len(messages) and messages[end]["role"] == role:
        end += 1
    return list(messages[begin:end])


def _assistant(message: Message, results: list[Message]) -> list[Message]:
    message = dict(message)
    thinking = message.pop("reasoning_content", None) or ""
    calls = message.pop("tool_calls", None) or []
    if calls and thinking and message["content"]:
        # What was said beside a call is rendered as reasoning either way.
        thinking, message["content"] = f"{thinking}\n{message['content']}", ""
    if thinking:
        message["thinking"] = thinking
    if len(calls) < 2:
        return [{**message, "tool_calls": calls} if calls else message, *results]
    ids = [call.get("id") for call in calls]
    if None in ids or len(set(ids)) < len(ids):
        raise FieldError("messages: each of several tool_calls must have an id of its own")
    of_call: dict[Any, list[Message]] = {}
    for result in results:
        of_call.setdefault(result.get("tool_call_id"), []).append(result)
    found: list[Message] = []
    for call in calls:
        found.append({**message, "tool_calls": [call]})
        found += of_call.get(call["id"], [])
        message = {"role": "assistant", "content": ""}
    return found
