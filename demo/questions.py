"""Questions for a model, as token ids, and how often it gives exactly the right answer."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from demo.tasks import SHARES, Conversation, Message, draw

MAX_ANSWER_TOKENS = 192
"""No right answer is as long."""

Decode = Callable[[list[list[int]]], Iterable[list[int]]]
"""A model: gives the answer's token ids for each prompt's, in order, the one that ends it included."""


@dataclass(frozen=True)
class Question:
    """A prompt and its right answer.

    Args:
        task: name of the task.
        messages: the conversation so far, the last message a user's or a tool's.
        answer: the assistant's message.
        tools: functions the model may call.
        effort: of reasoning.
    """

    task: str
    messages: list[Message]
    answer: Message
    tools: list[dict[str, Any]]
    effort: str


def questions(conversation: Conversation) -> list[Question]:
    """Gives each answer of a conversation behind its prompt."""
    return [
        Question(conversation.task, messages, answer, conversation.tools, conversation.effort)
        for messages, answer in conversation.turns()
    ]


def encode_prompt(tokenizer: Any, question: Question) -> list[int]:
    """Renders what the model is given, up to where its answer begins."""
    return encode(tokenizer, question, question.messages, add_generation_prompt=True)


def encode_answer(tokenizer: Any, question: Question) -> list[int]:
    """Renders the right answer, as it follows the prompt."""
    whole = encode(tokenizer, question, [*question.messages, question.answer])
    return whole[len(encode_prompt(tokenizer, question)) :]


def encode(
    tokenizer: Any, question: Question, messages: list[Message], **options: bool
) -> list[int]:
    """Renders messages with a question's tools and effort."""
    text = tokenizer.apply_chat_template(
        messages,
        tools=question.tools or None,
        reasoning_effort=question.effort,
        tokenize=False,
        **options,
    )
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@dataclass(frozen=True)
class Judged:
    """A question and what a model said to it.

    Args:
        question: what was asked.
        prompt: its token ids.
        answer: the model's token ids, up to and including the one that ends it.
        right: whether the final message, or the call, is token by token the right one.
    """

    question: Question
    prompt: list[int]
    answer: list[int]
    right: bool


def held_out_questions(count: int, seed: int) -> list[Question]:
    """Draws questions that training never asks, as many of each task as of any other."""
    tasks = list(SHARES)
    drawn: dict[str, list[Question]] = {task: [] for task in tasks}
    for task in tasks:
        rng = seeded(seed, f"held out {task}")
        while len(drawn[task]) * len(tasks) < count:
            drawn[task] += questions(draw(rng, held_out=True, tasks={task: 1.0}))
    return [question for at in zip(*drawn.values(), strict=False) for question in at][:count]


def standard_questions() -> list[Question]:
    """Draws the 500 questions that every reported share of right answers is of."""
    return held_out_questions(500, seed=1)


def judge(tokenizer: Any, asked: Sequence[Question], decode: Decode) -> list[Judged]:
    """Asks a model and compares its last message with the right one.

    The analysis is free: what counts is the final channel's text, or whom is called with which arguments.

    Args:
        tokenizer: the model's.
        asked: questions.
        decode: the model.
    """
    channel = tokenizer.convert_tokens_to_ids("<|channel|>")
    prompts = [encode_prompt(tokenizer, question) for question in asked]
    judged = []
    for question, prompt, answer in zip(asked, prompts, decode(prompts), strict=True):
        right = encode_answer(tokenizer, question)
        judged.append(
            Judged(question, prompt, answer, _last(answer, channel) == _last(right, channel))
        )
    return judged


def _last(ids: list[int], channel: int) -> list[int]:
    """Gives the last message, from its channel's name on."""
    return ids[len(ids) - ids[::-1].index(channel) :] if channel in ids else []


def accuracy(judged: Sequence[Judged]) -> dict[str, float]:
    """Gives the share of right answers for each task, and for all."""
    by_task: dict[str, list[bool]] = {}
    for one in judged:
        by_task.setdefault(one.question.task, []).append(one.right)
        by_task.setdefault("all", []).append(one.right)
    return {task: sum(right) / len(right) for task, right in sorted(by_task.items())}


def seeded(seed: int, purpose: str) -> random.Random:
    """Gives random choices of their own for each purpose."""
    return random.Random(f"{seed} {purpose}")
