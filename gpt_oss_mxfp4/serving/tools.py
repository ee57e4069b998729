"""What is wrong with the tools that a chat offers."""

from __future__ import annotations

from gpt_oss_mxfp4.serving.errors import Rejected, wrong_type, wrong_value

CHOICES = ("none", "auto", "required")
"""What ``tool_choice`` may be, but for a function's name."""


def check_tools(tools: object) -> None:
    """Checks a chat's tools; MAX finds such faults late, and says no longer which field they are in.

    Args:
        tools: what the request has for them.

    Raises:
        Rejected: the first fault found.
    """
    if not isinstance(tools, list):
        raise wrong_type("tools", "a list of functions", tools)
    for index, tool in enumerate(tools):
        _check_tool(f"tools[{index}]", tool)


def check_tool_choice(choice: object) -> None:
    """Checks which tool is to be called; whether it is offered is checked later.

    Args:
        choice: what the request has for it.

    Raises:
        Rejected: it is none of OpenAI's words, and names no function.
    """
    if choice is None or choice in CHOICES:
        return
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return
    raise Rejected(
        400,
        f"`tool_choice` must be {', '.join(CHOICES)}, or name a function as "
        '{"type": "function", "function": {"name": NAME}}.',
        "tool_choice",
    )


def _check_tool(name: str, tool: object) -> None:
    if not isinstance(tool, dict):
        raise wrong_type(name, "an object", tool)
    if (kind := tool.get("type")) != "function":
        raise wrong_value(f"{name}.type", "`function`", kind)
    function = tool.get("function")
    if not isinstance(function, dict):
        raise wrong_type(f"{name}.function", "an object", function)
    if not isinstance(function.get("name"), str):
        raise wrong_type(f"{name}.function.name", "a string", function.get("name"))
    if not isinstance(function.get("description"), str | None):
        raise wrong_type(f"{name}.function.description", "a string", function["description"])
    if not isinstance(function.get("parameters"), dict | None):
        raise wrong_type(f"{name}.function.parameters", "an object", function["parameters"])
