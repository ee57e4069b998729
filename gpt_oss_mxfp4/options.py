"""What a command was asked to do, and how it says that it will not; imported without MAX, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEMO_MODEL = Path(__file__).parent / "demo_model"
"""A small checkpoint that is part of the package: what is run where no model is named."""

DEFAULT_MAX_NEW_TOKENS = 1024
"""Enough to reason and to answer; a model that has answered ends by itself."""

Activations = Literal["bfloat16", "float32"]
"""Precision the expert matmuls round their inputs to: bf16 (fast) or none (float32)."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What the command line asks for; each field is the argument of the same name, checked by itself.

    Args:
        model: folder or Hub id, or None for the demo model.
        prompt: text, not empty.
        max_new_tokens: at least 1.
        temperature: 0 for the likeliest token always.
        top_k: tokens to sample from, or None for all.
        top_p: share of probability to sample from, or None for all.
        seed: of the sampling.
        show_reasoning: whether the reasoning is printed as well.
        raw: whether the prompt is continued as it is, without the chat template.
        devices: "cpu" or "gpu".
        activations: precision of the experts' inputs.
        verbose: whether MAX's log is shown.
    """

    model: str | None
    prompt: str
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    show_reasoning: bool
    raw: bool
    devices: str
    activations: Activations
    verbose: bool

    @property
    def model_name(self) -> str:
        """What the model is called where the command tells what it does."""
        return "the demo model" if self.model is None else self.model


class Refused(Exception):
    """What was asked for cannot be done; the text says why and what can."""
