"""Greedy decoding in transformers, and what another decoder does differently."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from transformers import GptOssForCausalLM

from demo.questions import MAX_ANSWER_TOKENS, Decode, Judged


def decode_in_torch(model: GptOssForCausalLM, batch: int = 64) -> Decode:
    """Gives greedy decoding in transformers, of prompts of like length together."""

    def decode(prompts: list[list[int]]) -> Iterator[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: dict[int, list[int]] = {}
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            for i, answer in zip(rows, _generate(model, [prompts[i] for i in rows]), strict=True):
                answers[i] = answer
        for i in range(len(prompts)):
            yield answers[i]

    return decode


@torch.inference_mode()
def _generate(model: GptOssForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    config = model.config
    # All of them: a checkpoint's config.json names one, as published ones do.
    ends = model.generation_config.eos_token_id
    length = max(map(len, prompts))
    # Padded on the left, where the mask hides it: answers begin at one position.
    ids = torch.tensor([[config.pad_token_id] * (length - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    output = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        use_cache=True,
        max_new_tokens=MAX_ANSWER_TOKENS,
        eos_token_id=ends,
        pad_token_id=config.pad_token_id,
    )
    answers = output[:, length:].tolist()
    return [_until(answer, ends) for answer in answers]


def _until(answer: list[int], ends: list[int]) -> list[int]:
    for i, token in enumerate(answer):
        if token in ends:
            return answer[: i + 1]
    return answer


@dataclass(frozen=True)
class Difference:
    """An answer that two models did not give alike.

    Args:
        task: name of the task.
        asked: the last message of the prompt.
        reference: text of the first model's answer.
        other: text of the second's.
        token: of the answer, the first that differs.
        margin: of the first model's two likeliest tokens there, in logits.
        rank: of the second model's token among the first's there; 2 is the runner-up.
    """

    task: str
    asked: str
    reference: str
    other: str
    token: int
    margin: float
    rank: int


@torch.inference_mode()
def compare(
    model: GptOssForCausalLM, tokenizer: Any, reference: Sequence[Judged], other: Sequence[Judged]
) -> list[Difference]:
    """Gives all answers that differ in any token, the analysis included.

    Args:
        model: what gave the reference.
        tokenizer: its own.
        reference: answers to the same questions as those of ``other``.
        other: answers.
    """
    differences = []
    for one, two in zip(reference, other, strict=True):
        if one.answer == two.answer:
            continue
        token = next(i for i, (a, b) in enumerate(zip_longest(one.answer, two.answer)) if a != b)
        ids = torch.tensor([one.prompt + one.answer[:token]])
        logits = model(ids, use_cache=False).logits[0, -1]
        best, second = logits.topk(2).values.tolist()
        ranked = logits.argsort(descending=True).tolist()
        differences.append(
            Difference(
                task=one.question.task,
                asked=one.question.messages[-1]["content"],
                reference=tokenizer.decode(one.answer),
                other=tokenizer.decode(two.answer),
                token=token,
                margin=best - second,
                rank=1 + ranked.index(two.answer[token]),
            )
        )
    return differences
