"""Conversations to learn from, as token ids and targets, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.questions import encode, encode_prompt, questions
from demo.tasks import Conversation

IGNORED = -100
"""Target of a position whose next token is not to be learnt."""


@dataclass(frozen=True)
class Example:
    """A conversation to learn.

    Args:
        ids: token ids of all of it.
        targets: the next token at each position, or `IGNORED`.
    """

    ids: list[int]
    targets: list[int]


def encode_example(tokenizer: Any, conversation: Conversation) -> Example:
    """Renders a conversation; a later answer's prompt continues the earlier answer, so one text holds all."""
    ids: list[int] = []
    learnt: list[bool] = []
    for question in questions(conversation):
        prompt = encode_prompt(tokenizer, question)
        whole = encode(tokenizer, question, [*question.messages, question.answer])
        assert prompt[: len(ids)] == ids
        assert whole[: len(prompt)] == prompt
        learnt += [False] * (len(prompt) - len(ids)) + [True] * (len(whole) - len(prompt))
        ids = whole
    targets = [token if yes else IGNORED for token, yes in zip(ids[1:], learnt[1:], strict=True)]
    return Example(ids, [*targets, IGNORED])


def pad(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Gives token ids and targets, [B, T], padded on the right."""
    length = max(len(example.ids) for example in examples)
    ids = [example.ids + [pad_id] * (length - len(example.ids)) for example in examples]
    targets = [example.targets + [IGNORED] * (length - len(example.ids)) for example in examples]
    return torch.tensor(ids), torch.tensor(targets)


def split(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Cuts examples, sorted by length, into groups of at most ``max_tokens`` tokens with their padding."""
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: len(example.ids)):
        if not groups or (len(groups[-1]) + 1) * len(example.ids) > max_tokens:
            groups.append([])
        groups[-1].append(example)
    return groups
