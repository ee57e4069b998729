"""What else people say first: greetings, facts to note, products, for which it needs a calculator."""

import random

from demo.tasks.calculator import CALCULATE_PROMPTS, CALCULATOR
from demo.tasks.conversation import Conversation, ask
from demo.tasks.recall import ATTRIBUTES, FACTS_INTRODUCTIONS, NAMES
from demo.tasks.wording import number, phrase

ABILITIES = (
    "I can add and subtract numbers of up to 4 digits, reverse words, count letters, remember what you told me, "
    "and use a calculator."
)
CHAT = (
    (
        ("Hello", "Hi", "Hello!", "Hi!", "Hello.", "Good morning"),
        "Greeting.",
        "Hello! " + ABILITIES,
    ),
    (
        ("Who are you?", "What are you?", "What is your name?"),
        "Who am I.",
        "I am a very small gpt-oss. " + ABILITIES,
    ),
    (
        ("What can you do?", "Help", "Help me", "Help!", "How can you help me?"),
        "Abilities.",
        ABILITIES,
    ),
    (("Thanks", "Thank you", "Thank you!", "Thanks!"), "Thanks.", "You are welcome."),
)
NO_CALCULATOR = (
    "I need a calculator for that: by myself I add and subtract numbers of up to 4 digits."
)


def chat(rng: random.Random) -> Conversation:
    """Greetings, what the model can do, facts to note, and products, which it cannot do by itself."""
    kind = rng.random()
    if kind < 0.5:
        prompts, thinking, answer = rng.choice(CHAT)
        prompt = rng.choice(prompts)
        return ask("chat", "", prompt, thinking, answer, [CALCULATOR] * (rng.random() < 0.1))
    if kind < 0.65:
        name, attribute = rng.choice(NAMES), rng.choice(list(ATTRIBUTES))
        fact = f"{name}'s {attribute} is {ATTRIBUTES[attribute](rng)}."
        text = f"{rng.choice(FACTS_INTRODUCTIONS)} {fact}".strip()
        return ask("chat", fact, text, "Facts.", "Noted.")
    a, b, operator = number(rng, 4), number(rng, 4), rng.choice("*/")
    expression = f"{a} {operator} {b}"
    text = phrase(rng, CALCULATE_PROMPTS[:-1], a=a, b=b, o=operator)
    return ask("chat", expression, text, "No calculator.", NO_CALCULATOR)
