"""The training loop."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import GptOssForCausalLM

from demo.examples import Example, encode_example, pad, split
from demo.muon import Muon
from demo.questions import seeded
from demo.tasks import STORY_WORDS, draw

STORIES = (0, 60, STORY_WORDS)
"""Words between a fact and its question: looking a fact up is learnt where it is near, and then from afar."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run depends on, besides the code.

    Args:
        seed: of weights and conversations.
        steps: of the optimiser.
        conversations: in each step.
        lr: highest learning rate; it rises for ``warmup`` steps and then falls to zero along a line.
        warmup: steps.
        weight_decay: of matrices.
        betas: of AdamW, which takes what is no matrix inside a layer.
        max_tokens: of one forward pass, padding included.
    """

    seed: int = 0
    steps: int = 1200
    conversations: int = 64
    lr: float = 4e-3
    warmup: int = 40
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    max_tokens: int = 2048


@dataclass(frozen=True)
class Step:
    """What a step saw.

    Args:
        number: from 1.
        loss: cross entropy of a token, in nats, before the step.
        accuracy: share of tokens that were the likeliest.
    """

    number: int
    loss: float
    accuracy: float


def train(model: GptOssForCausalLM, tokenizer: Any, recipe: Recipe) -> Iterator[Step]:
    """Trains in place, on conversations that are never drawn again.

    Args:
        model: from `make_model`.
        tokenizer: from `make_tokenizer`.
        recipe: how.
    """
    rng = seeded(recipe.seed, "training")
    optimizers = make_optimizers(model, recipe)
    for step in range(recipe.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * schedule(step, recipe)
        examples = [
            encode_example(tokenizer, draw(rng, held_out=False, story_words=rng.choice(STORIES)))
            for _ in range(recipe.conversations)
        ]
        loss, accuracy = accumulate_gradients(model, examples, tokenizer.pad_token_id, recipe)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield Step(step + 1, loss, accuracy)


def make_optimizers(model: GptOssForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Gives Muon for the matrices inside layers and AdamW for everything else."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and "router" not in name and "bias" not in name
        (matrices if inside and parameter.ndim > 1 else others).append(parameter)
    return [
        Muon(matrices, recipe.lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, recipe.lr, betas=recipe.betas, weight_decay=0.0, foreach=True),
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """Gives the share of the highest learning rate: a line up, a line down."""
    rise = (step + 1) / recipe.warmup
    fall = (recipe.steps - step) / (recipe.steps - recipe.warmup)
    return min(1.0, rise, fall)


def accumulate_gradients(
    model: GptOssForCausalLM, examples: list[Example], pad_id: int, recipe: Recipe
) -> tuple[float, float]:
    """Adds the gradient of the mean loss over the tokens to learn; gives that loss and the share of them got right.

    A token weighs 1 / sqrt(n) in the loss's mean, where its conversation has n to learn: sums, which are spelled out
    at the greatest length, would leave little to the other tasks if all tokens weighed the same.
    """
    to_learn = [sum(target >= 0 for target in example.targets) for example in examples]
    total_weight = sum(math.sqrt(n) for n in to_learn)
    loss, right = 0.0, 0.0
    with parametrize.cached():  # the experts are rounded once for all groups
        for group in split(examples, recipe.max_tokens):
            ids, targets = pad(group, pad_id)
            hidden = model.model(ids, use_cache=False).last_hidden_state
            learnt = targets >= 0
            logits: Tensor = model.lm_head(hidden[learnt])
            weights = learnt.sum(-1, keepdim=True).rsqrt().expand_as(targets)[learnt]
            losses = F.cross_entropy(logits, targets[learnt], reduction="none")
            group_loss = (weights * losses).sum() / total_weight
            group_loss.backward()
            loss += group_loss.item()
            right += (logits.argmax(-1) == targets[learnt]).sum().item()
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss}: lower the learning rate")
    return loss, right / sum(to_learn)
