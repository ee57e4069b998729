"""What a command was asked to do, and how it says that it will not; imported without MAX, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_MODEL = "openai/gpt-oss-20b"

Activations = Literal["bfloat16", "float32"]
"""Precision the expert matmuls round their inputs to: bf16 (fast) or none (float32)."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What the command line asks for; each field is the argument of the same name, checked by itself.

    Args:
        model: folder or Hub id.
        prompt: text, not empty.
        max_new_tokens: at least 1.
        temperature: 0 for the likeliest token always.
        top_k: tokens to sample from, or None for all.
        top_p: share of probability to sample from, or None for all.
        seed: of the sampling.
        devices: "cpu" or "gpu".
        activations: precision of the experts' inputs.
        verbose: whether MAX's log is shown.
    """

    model: str
    prompt: str
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    devices: str
    activations: Activations
    verbose: bool


class Refused(Exception):
    """What was asked for cannot be done; the text says why and what can."""
