"""Sums and differences, worked out column by column."""

import random

from demo.tasks.conversation import Conversation, ask
from demo.tasks.wording import number, phrase

PLACES = ("ones", "tens", "hundreds", "thousands")
MAX_DIGITS = len(PLACES)

ADD_PROMPTS = (
    "What is {a} + {b}?",
    "{a} + {b}",
    "{a}+{b}",
    "{a} + {b} = ?",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "What is the sum of {a} and {b}?",
    "What is {a} plus {b}?",
    "How much is {a} + {b}?",
)
SUBTRACT_PROMPTS = (
    "What is {a} - {b}?",
    "{a} - {b}",
    "{a}-{b}",
    "{a} - {b} = ?",
    "Subtract {b} from {a}.",
    "Calculate {a} - {b}.",
    "What is {a} minus {b}?",
    "How much is {a} - {b}?",
)


def add(rng: random.Random) -> Conversation:
    """Sum of two numbers of up to four digits, the carries spelled out."""
    a, b = number(rng, MAX_DIGITS), number(rng, MAX_DIGITS)
    return ask(
        "add",
        f"{a} {b}",
        phrase(rng, ADD_PROMPTS, a=a, b=b),
        f"{a:04} + {b:04}: {_column_steps(a, b, 1)} Sum {a + b:05}.",
        str(a + b),
    )


def subtract(rng: random.Random) -> Conversation:
    """Difference of two numbers of up to four digits, the borrows spelled out."""
    a, b = number(rng, MAX_DIGITS), number(rng, MAX_DIGITS)
    if a < b and rng.random() < 0.5:
        a, b = b, a
    if a < b:
        steps = f"less. Minus {b:04} - {a:04}: {_column_steps(b, a, -1)}"
    else:
        steps = f"{'more' if a > b else 'equal'}. {a:04} - {b:04}: {_column_steps(a, b, -1)}"
    return ask(
        "subtract",
        f"{a} {b}",
        phrase(rng, SUBTRACT_PROMPTS, a=a, b=b),
        f"{a:04} - {b:04}? {_compare(a, b)} {steps} Difference {abs(a - b):04}.",
        str(a - b),
    )


def _compare(a: int, b: int) -> str:
    """Compares digits from the left, up to the first that differ."""
    steps = []
    for x, y in zip(f"{a:04}", f"{b:04}", strict=True):
        steps.append(f"{x}{'=' if x == y else '<' if x < y else '>'}{y}")
        if x != y:
            break
    return " ".join(steps)


def _column_steps(a: int, b: int, sign: int) -> str:
    steps, carry = [], 0
    symbol, name = ("+", "carry") if sign > 0 else ("-", "borrow")
    for place in PLACES:
        (a, x), (b, y) = divmod(a, 10), divmod(b, 10)
        value = x + sign * (y + carry)
        steps.append(
            f"{place} {x}{symbol}{y}{symbol}{carry}={value % 10} {name} {abs(value // 10)}"
        )
        carry = abs(value // 10)
    return ", ".join(steps) + "."
