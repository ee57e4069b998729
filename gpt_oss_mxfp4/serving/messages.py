"""What is wrong with the messages of a chat."""

from __future__ import annotations

from gpt_oss_mxfp4.serving.errors import Rejected, wrong_type, wrong_value

ROLES = ("system", "developer", "user", "assistant", "tool")


MAX_CALLS = 128
"""Of one message: MAX compares each with every result, while other clients wait."""


def check_messages(messages: object) -> None:
    """Checks a chat's messages.

    Args:
        messages: what the request has for them.

    Raises:
        Rejected: the first fault found.
    """
    if not isinstance(messages, list):
        raise wrong_type("messages", "a list of messages", messages)
    if not messages:
        raise Rejected(400, "`messages` must hold at least one message.", "messages")
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message)


def _check_message(name: str, message: object) -> None:
    if not isinstance(message, dict):
        raise wrong_type(name, "an object", message)
    role = message.get("role")
    if role not in ROLES:
        raise wrong_value(f"{name}.role", f"one of {', '.join(ROLES)}", role)
    content = message.get("content")
    calls = message.get("tool_calls")
    if isinstance(calls, list) and len(calls) > MAX_CALLS:
        raise Rejected(
            400, f"`{name}.tool_calls` must hold at most {MAX_CALLS} calls.", f"{name}.tool_calls"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise wrong_type(f"{name}.tool_call_id", "a string", message.get("tool_call_id"))
    if content is None and role == "assistant":  # it may have called a tool instead
        return
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(f"{name}.content[{index}]", part)
    elif not isinstance(content, str):
        raise wrong_type(f"{name}.content", "a string or a list of text parts", content)


def _check_part(name: str, part: object) -> None:
    if not isinstance(part, dict):
        raise wrong_type(name, "an object", part)
    if (kind := part.get("type")) != "text":
        raise wrong_value(f"{name}.type", "`text`, all this model reads", kind)
    if not isinstance(part.get("text"), str):
        raise wrong_type(f"{name}.text", "a string", part.get("text"))
