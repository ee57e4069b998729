"""What the demo model is asked: conversations with a right answer, drawn at random.

Each task draws a question, spells out the reasoning (the analysis channel) and gives the answer (the final
channel, or a call of the calculator). A tenth of all questions, picked by a hash of what is asked whatever
the words around it, is held out: training never asks it.
"""

import random
import re
from collections.abc import Callable
from itertools import chain

from demo.tasks import calculator, chat, recall, sums, words
from demo.tasks.conversation import Conversation, Message
from demo.tasks.recall import STORY_WORDS

__all__ = ["SHARES", "STORY_WORDS", "TASKS", "Conversation", "Message", "draw", "prose"]

EFFORTS = ("low", "medium", "high")

INSTRUCTIONS = (
    "You are a helpful assistant.",
    "Answer the user's question.",
    "Be brief.",
    "Be helpful and brief.",
    "You are a helpful, honest assistant. Answer briefly.",
)
"""What the system or developer message says in some conversations; it changes no answer."""

TASKS: dict[str, Callable[[random.Random], Conversation]] = {
    "add": sums.add,
    "subtract": sums.subtract,
    "reverse": words.reverse,
    "count": words.count,
    "recall": recall.recall,
    "calculate": calculator.calculate,
    "chat": chat.chat,
}
EARLIER = ("add", "reverse", "count", "chat")
"""What an earlier turn may have been about."""

SHARES = {
    "add": 0.16,
    "subtract": 0.22,
    "reverse": 0.12,
    "count": 0.22,
    "recall": 0.11,
    "calculate": 0.14,
    "chat": 0.03,
}
"""Share of each task in training."""


def draw(
    rng: random.Random,
    *,
    held_out: bool,
    tasks: dict[str, float] | None = None,
    story_words: int = STORY_WORDS,
) -> Conversation:
    """Draws a conversation.

    Args:
        rng: source of the choices.
        held_out: whether its question is one of those that training never asks.
        tasks: share of each task; `SHARES` unless given.
        story_words: least words between a fact and the question for it.
    """
    shares = tasks or SHARES
    task = rng.choices(list(shares), list(shares.values()))[0]
    return _vary(rng, _draw_allowed(rng, task, held_out=held_out, story_words=story_words))


def _draw_allowed(
    rng: random.Random, task: str, *, held_out: bool, story_words: int = STORY_WORDS
) -> Conversation:
    """Draws from one task until the conversation is one of those held out, or none of them."""
    while True:
        conversation = recall.recall(rng, story_words) if task == "recall" else TASKS[task](rng)
        if conversation.held_out == held_out:
            return conversation


def _vary(rng: random.Random, conversation: Conversation) -> Conversation:
    """Adds what must not change an answer: earlier turns, instructions, the effort that is asked for."""
    messages = conversation.messages
    if conversation.task != "recall" and rng.random() < 0.12:
        earlier = _draw_allowed(rng, rng.choice(EARLIER), held_out=False).messages
        messages = [earlier[0], {"role": "assistant", "content": earlier[-1]["content"]}, *messages]
    if rng.random() < 0.15:
        messages = [{"role": "system", "content": rng.choice(INSTRUCTIONS)}, *messages]
    return Conversation(
        conversation.task, conversation.question, messages, conversation.tools, rng.choice(EFFORTS)
    )


def prose() -> str:
    """Every text that questions and answers are made of: what the tokenizer finds its words in."""
    phrases = [*INSTRUCTIONS, chat.ABILITIES, chat.NO_CALCULATOR]
    phrases += [*recall.FACTS_INTRODUCTIONS, *recall.TIMES]
    for prompt in chain(
        sums.ADD_PROMPTS,
        sums.SUBTRACT_PROMPTS,
        words.REVERSE_PROMPTS,
        words.COUNT_PROMPTS,
        recall.RECALL_PROMPTS,
        calculator.CALCULATE_PROMPTS,
    ):
        phrases += [prompt, f"Please {prompt[0].lower()}{prompt[1:]}"]
    for prompts, thinking, answer in chat.CHAT:
        phrases += [*prompts, thinking, answer]
    behind_a_space = chain(
        sums.PLACES,
        recall.NAMES,
        recall.ATTRIBUTES,
        recall.SUBJECTS,
        recall.ADJECTIVES,
        recall.VERBS,
        recall.PLACES_OF_STORY,
    )
    phrases += [f" {name}" for name in behind_a_space]
    phrases += [
        "Sum Difference less more equal. Minus carry borrow",
        "Spell: Backwards: Count Noted.",
        "It says",
        " The the near",
        "Use the calculator.",
        "Facts.",
        "No calculator.",
        "Please",
    ]
    return re.sub(r"\{.\}", "", "\n".join(phrases))
