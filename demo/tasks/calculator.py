"""The calculator, called and its result reported."""

import json
import random
from typing import Any

from demo.tasks.conversation import Conversation, Message
from demo.tasks.wording import number, phrase

CALCULATOR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluates an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "Like 12 * 34."}},
            "required": ["expression"],
        },
    },
}
"""The one tool that the model is taught to call."""

CALCULATE_PROMPTS = (
    "What is {a} {o} {b}?",
    "{a} {o} {b}",
    "{a}{o}{b}",
    "Calculate {a} {o} {b}.",
    "How much is {a} {o} {b}?",
    "Use the calculator: {a} {o} {b}",
)


def calculate(rng: random.Random) -> Conversation:
    """A call of the calculator with the right expression, then the answer from its result."""
    a, b, operator = number(rng, 4), number(rng, 4), rng.choice("**//+-")
    if rng.random() < 0.7:
        result = {"*": a * b, "+": a + b, "-": a - b, "/": round(a / max(b, 1), 3)}[operator]
    else:  # the answer is what the tool says, whatever that is
        result = rng.randrange(10 ** rng.randint(1, 8))
    expression = f"{a} {operator} {b}"
    messages: list[Message] = [
        {
            "role": "user",
            "content": phrase(rng, CALCULATE_PROMPTS, a=a, b=b, o=operator),
        },
        {
            "role": "assistant",
            "thinking": "Use the calculator.",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {
                        "name": "calculator",
                        "arguments": json.dumps({"expression": expression}),
                    },
                }
            ],
        },
        {"role": "tool", "content": _tool_output(rng, result)},
        {"role": "assistant", "thinking": f"It says {result}.", "content": str(result)},
    ]
    return Conversation("calculate", expression, messages, [CALCULATOR])


def _tool_output(rng: random.Random, result: float) -> str:
    form = rng.random()
    if form < 0.7:
        return str(result)
    return json.dumps(str(result)) if form < 0.85 else json.dumps({"result": result})
