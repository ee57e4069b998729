"""What a command was asked to do, and how it says that it will not; imported without MAX, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEMO_MODEL = Path(__file__).parent / "demo_model"
"""A small checkpoint that is part of the package: what is run where no model is named."""

Activations = Literal["bfloat16", "float32"]
"""Precision the expert matmuls round their inputs to: bf16 (fast) or none (float32)."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What the command line asks for; each field is the argument of the same name, checked by itself.

    Args:
        model: folder or Hub id, or None for the demo model.
        prompt: text, not empty.
        max_new_tokens: at least 1; the default is enough to reason and to answer, and an answer ends by itself.
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

    model: str | None = None
    prompt: str
    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    show_reasoning: bool = False
    raw: bool = False
    devices: str = "cpu"
    activations: Activations = "bfloat16"
    verbose: bool = False

    @property
    def model_name(self) -> str:
        """What the model is called where the command tells what it does."""
        return "the demo model" if self.model is None else self.model


class Refused(Exception):
    """What was asked for cannot be done; the text says why and what can."""
