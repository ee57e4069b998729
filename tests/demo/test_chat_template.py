"""The chat template: whole texts, as the harmony format's documentation writes them.

Source: https://developers.openai.com/cookbook/articles/openai-harmony. Its system message also has an
identity, dates and the channels; the demo's has the effort alone, so that training spends its tokens on answers.
"""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.exceptions import TemplateError

from demo.tasks.calculator import CALCULATOR

SYSTEM = "<|start|>system<|message|>Reasoning: medium<|end|>"

SYSTEM_WITH_TOOLS = """\
<|start|>system<|message|>Reasoning: medium
Calls to these tools must go to the commentary channel: 'functions'.<|end|>"""

TOOLS = """\
# Tools

## functions

namespace functions {

// Evaluates an arithmetic expression.
type calculator = (_: {
// Like 12 * 34.
expression: string,
}) => any;

} // namespace functions<|end|>"""

HELLO = {"role": "user", "content": "Hello"}
CALL = {
    "role": "assistant",
    "thinking": "Use the calculator.",
    "tool_calls": [
        {
            "type": "function",
            "function": {"name": "calculator", "arguments": '{"expression": "12 * 34"}'},
        }
    ],
}
RESULT = {"role": "tool", "content": "408"}


def render(tokenizer: Any, messages: list[dict[str, Any]], **variables: Any) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, **variables)
    return text


def test_a_question_is_followed_by_the_start_of_the_answer(tokenizer: Any) -> None:
    text = render(tokenizer, [HELLO], add_generation_prompt=True)
    assert text == f"{SYSTEM}<|start|>user<|message|>Hello<|end|><|start|>assistant"


def test_an_answer_ends_the_text_with_return(tokenizer: Any) -> None:
    answer = {"role": "assistant", "thinking": "Greeting.", "content": "Hello!"}
    assert render(tokenizer, [HELLO, answer]) == (
        f"{SYSTEM}<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Greeting.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello!<|return|>"
    )


@pytest.mark.parametrize("name", ["thinking", "reasoning_content", "reasoning"])
def test_reasoning_has_three_names(tokenizer: Any, name: str) -> None:
    answer = {"role": "assistant", name: "Greeting.", "content": "Hello!"}
    text = render(tokenizer, [HELLO, answer])
    assert "<|start|>assistant<|channel|>analysis<|message|>Greeting.<|end|>" in text


def test_an_answer_without_reasoning_has_no_analysis(tokenizer: Any) -> None:
    answer = {"role": "assistant", "content": "Hello!"}
    assert render(tokenizer, [HELLO, answer]) == (
        f"{SYSTEM}<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello!<|return|>"
    )


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_the_developers(tokenizer: Any, role: str) -> None:
    messages = [{"role": role, "content": "Always respond in riddles"}, HELLO]
    assert render(tokenizer, messages, add_generation_prompt=True) == (
        f"{SYSTEM}<|start|>developer<|message|># Instructions\n\nAlways respond in riddles<|end|>"
        "<|start|>user<|message|>Hello<|end|><|start|>assistant"
    )


def test_empty_instructions_are_none(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": ""}, HELLO]
    assert render(tokenizer, messages) == f"{SYSTEM}<|start|>user<|message|>Hello<|end|>"


def test_a_tool_is_offered(tokenizer: Any) -> None:
    text = render(tokenizer, [HELLO], tools=[CALCULATOR], add_generation_prompt=True)
    assert text == (
        f"{SYSTEM_WITH_TOOLS}<|start|>developer<|message|>{TOOLS}"
        "<|start|>user<|message|>Hello<|end|><|start|>assistant"
    )


def test_tools_stand_behind_instructions(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Use a friendly tone."}, HELLO]
    assert render(tokenizer, messages, tools=[CALCULATOR]) == (
        f"{SYSTEM_WITH_TOOLS}<|start|>developer<|message|># Instructions\n\nUse a friendly tone.\n\n{TOOLS}"
        "<|start|>user<|message|>Hello<|end|>"
    )


def test_a_call_ends_the_text_with_call(tokenizer: Any) -> None:
    assert render(tokenizer, [HELLO, CALL]) == (
        f"{SYSTEM}<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Use the calculator.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>'
    )


def test_what_a_tool_says_goes_to_the_assistant_and_the_reasoning_is_kept(tokenizer: Any) -> None:
    expected = (
        f"{SYSTEM}<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Use the calculator.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>'
        "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>408<|end|>"
        "<|start|>assistant"
    )
    assert render(tokenizer, [HELLO, CALL, RESULT], add_generation_prompt=True) == expected
    answer = {"role": "assistant", "thinking": "It says 408.", "content": "408"}
    assert render(tokenizer, [HELLO, CALL, RESULT, answer]) == (
        f"{expected}<|channel|>analysis<|message|>It says 408.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>408<|return|>"
    )


def test_arguments_may_be_an_object(tokenizer: Any) -> None:
    function = {"name": "f", "arguments": {"a": ["é", 1, None]}}
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    assert render(tokenizer, [HELLO, call]).endswith(
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
        '{"a": ["é", 1, null]}<|call|>'
    )


def test_reasoning_is_dropped_up_to_the_last_answer(tokenizer: Any) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "thinking": "Simple arithmetic.", "content": "4"},
        {"role": "user", "content": "What is 12 * 34?"},
        CALL,
        RESULT,
        {"role": "assistant", "thinking": "It says 408.", "content": "408"},
        {"role": "user", "content": "And 56 * 78?"},
        {
            "role": "assistant",
            "thinking": "Once more.",
            "tool_calls": [{"function": {"name": "calculator", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "4368"},
    ]
    assert render(tokenizer, messages, add_generation_prompt=True) == (
        f"{SYSTEM}<|start|>user<|message|>What is 2 + 2?<|end|>"
        "<|start|>assistant<|channel|>final<|message|>4<|end|>"
        "<|start|>user<|message|>What is 12 * 34?<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>'
        "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>408<|end|>"
        "<|start|>assistant<|channel|>final<|message|>408<|end|>"
        "<|start|>user<|message|>And 56 * 78?<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Once more.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
        "{}<|call|>"
        "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>4368<|end|>"
        "<|start|>assistant"
    )


def test_the_last_answers_reasoning_stays_while_it_is_the_last(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "1 + 1"},
        {"role": "assistant", "thinking": "Earlier.", "content": "2"},
        {"role": "user", "content": "2 + 2"},
        {"role": "assistant", "thinking": "Last.", "content": "4"},
    ]
    assert render(tokenizer, messages) == (
        f"{SYSTEM}<|start|>user<|message|>1 + 1<|end|>"
        "<|start|>assistant<|channel|>final<|message|>2<|end|>"
        "<|start|>user<|message|>2 + 2<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Last.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>4<|return|>"
    )


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_the_effort_of_reasoning_is_a_line_of_the_system_message(
    tokenizer: Any, effort: str
) -> None:
    text = render(tokenizer, [HELLO], reasoning_effort=effort)
    system = SYSTEM.replace("Reasoning: medium", f"Reasoning: {effort}")
    assert text == f"{system}<|start|>user<|message|>Hello<|end|>"


def test_an_identity_may_be_given(tokenizer: Any) -> None:
    text = render(tokenizer, [HELLO], model_identity="You are a lighthouse.")
    assert text.startswith("<|start|>system<|message|>You are a lighthouse.\n\nReasoning: medium<|")


def test_content_may_be_parts(tokenizer: Any) -> None:
    def parts(*texts: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text} for text in texts]

    whole: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello there"},
        CALL,
        {"role": "tool", "content": "40.8"},
        {"role": "assistant", "content": "Hi you"},
    ]
    contents = [
        parts("Be ", "brief."),
        parts("Hello", " there"),
        None,
        parts("40", ".8"),
        parts("Hi you"),
    ]
    in_parts = [m | ({"content": c} if c else {}) for m, c in zip(whole, contents, strict=True)]
    assert render(tokenizer, in_parts) == render(tokenizer, whole)
    assert render(tokenizer, [{"role": "user", "content": parts()}]).endswith("<|message|><|end|>")


def test_text_is_rendered_as_it_is(tokenizer: Any) -> None:
    text = "  a <b> & 'c' \"d\"\n\n{{ e }}\n "
    assert render(tokenizer, [{"role": "user", "content": text}]) == (
        f"{SYSTEM}<|start|>user<|message|>{text}<|end|>"
    )


def test_a_tools_message_without_a_call_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"^a tool's message must follow a call of it$"):
        render(tokenizer, [HELLO, RESULT])


def test_content_beside_a_call_is_its_reasoning(tokenizer: Any) -> None:
    call = {"role": "assistant", "content": CALL["thinking"], "tool_calls": CALL["tool_calls"]}
    assert render(tokenizer, [HELLO, call]) == render(tokenizer, [HELLO, CALL])


def test_content_and_thinking_beside_a_call_are_refused(tokenizer: Any) -> None:
    message = r"^a message that calls a tool may hold thinking or content, not both$"
    with pytest.raises(TemplateError, match=message):
        render(tokenizer, [HELLO, {**CALL, "content": "Here it is."}])


def test_two_calls_in_one_message_are_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"^a message may call one tool, got 2$"):
        render(tokenizer, [HELLO, {**CALL, "tool_calls": [*CALL["tool_calls"]] * 2}])


@pytest.mark.parametrize("role", ["critic", "system", "developer"])
def test_another_role_is_refused(tokenizer: Any, role: str) -> None:
    message = rf"^a message's role must be user, assistant or tool, or system first, got {role}$"
    with pytest.raises(TemplateError, match=message):
        render(tokenizer, [HELLO, {"role": role, "content": "No."}])


def offer(tokenizer: Any, *tools: dict[str, Any]) -> str:
    """What is written between the braces of the namespace."""
    text = render(tokenizer, [HELLO], tools=list(tools))
    begin = text.index("namespace functions {\n\n") + len("namespace functions {\n\n")
    return text[begin : text.index("} // namespace functions<|end|>")]


def function(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    definition = {"name": name, **({"parameters": parameters} if parameters else {}), **more}
    return {"type": "function", "function": definition}


def test_functions_of_the_documentation(tokenizer: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            },
            "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location"],
    }
    locations = {
        "type": "array",
        "items": {"type": "string"},
        "description": 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]',
    }
    several = {
        "type": "object",
        "properties": {"locations": locations, "format": schema["properties"]["format"]},  # type: ignore[index]
        "required": ["locations"],
    }
    tools = (
        function("get_location", description="Gets the location of the user."),
        function(
            "get_current_weather",
            schema,
            description="Gets the current weather in the provided location.",
        ),
        function(
            "get_multiple_weathers",
            several,
            description="Gets the current weather in the provided list of locations.",
        ),
    )
    assert offer(tokenizer, *tools) == (
        "// Gets the location of the user.\n"
        "type get_location = () => any;\n"
        "\n"
        "// Gets the current weather in the provided location.\n"
        "type get_current_weather = (_: {\n"
        "// The city and state, e.g. San Francisco, CA\n"
        "location: string,\n"
        'format?: "celsius" | "fahrenheit",\n'
        "}) => any;\n"
        "\n"
        "// Gets the current weather in the provided list of locations.\n"
        "type get_multiple_weathers = (_: {\n"
        '// List of city and state, e.g. ["San Francisco, CA", "New York, NY"]\n'
        "locations: string[],\n"
        'format?: "celsius" | "fahrenheit",\n'
        "}) => any;\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "string"}, "x: string,"),
        ({"type": "integer"}, "x: number,"),
        ({"type": "number"}, "x: number,"),
        ({"type": "boolean"}, "x: boolean,"),
        ({"type": "null"}, "x: null,"),
        ({}, "x: any,"),
        ({"type": ["string", "null"]}, "x: string | null,"),
        ({"type": "string", "enum": ["a", "é"]}, 'x: "a" | "é",'),
        ({"enum": [1, None]}, "x: 1 | null,"),
        ({"type": "array", "items": {"type": "number"}}, "x: number[],"),
        ({"type": "array", "items": {"type": "array", "items": {}}}, "x: any[][],"),
        ({"type": "array"}, "x: any[],"),
        ({"type": "object"}, "x: object,"),
        ({"type": "object", "properties": {}}, "x: object,"),
        (
            {
                "type": "object",
                "properties": {
                    "a": {"type": "string", "description": "A."},
                    "b": {"type": "number"},
                },
                "required": ["b"],
            },
            "x: {\n// A.\na?: string,\nb: number,\n},",
        ),
        (
            {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "x: {\na?: string,\n}[],",
        ),
        ({"type": "number", "default": 10}, "x: number, // default: 10"),
        ({"enum": ["a", "b"], "default": "b"}, 'x: "a" | "b", // default: b'),
        ({"enum": [1, 2], "default": 2}, "x: 1 | 2, // default: 2"),
        ({"type": "string", "default": "b"}, 'x: string, // default: "b"'),
        ({"type": "string", "description": "Why."}, "// Why.\nx: string,"),
    ],
)
def test_types_of_parameters(tokenizer: Any, schema: dict[str, Any], field: str) -> None:
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    expected = f"type f = (_: {{\n{field}\n}}) => any;\n\n"
    assert offer(tokenizer, function("f", parameters)) == expected


def test_what_is_not_required_is_optional(tokenizer: Any) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "string"}}}
    assert (
        offer(tokenizer, function("f", parameters)) == "type f = (_: {\nx?: string,\n}) => any;\n\n"
    )


def test_a_function_may_stand_without_its_wrapper(tokenizer: Any) -> None:
    assert offer(tokenizer, CALCULATOR["function"]) == offer(tokenizer, CALCULATOR)
