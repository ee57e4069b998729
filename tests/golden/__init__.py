"""A committed checkpoint and the logits that transformers computes from it in float32.

`make.py` made everything here and says how. With it the whole model is tested where torch and
transformers are absent.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.measure import LogitError

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "checkpoint"
"""From `tests.make_checkpoint`: four layers, 3 MB, complete with a tokenizer."""


@dataclass(frozen=True)
class Prompt:
    """Token ids and what transformers makes of them."""

    name: str
    token_ids: NDArray[np.int64]
    """[T]."""
    positions: NDArray[np.int64]
    """[n]: where logits were kept: everywhere, but for the longest prompt."""
    logits: NDArray[np.float32]
    """[n, vocabulary], by transformers in float32."""
    rounded_errors: dict[str, LogitError]
    """What the float64 reference gets wrong when it rounds what our options round, and nothing else: inputs of
    matmuls to "bfloat16", the default, or "int8", with weights of dense layers as they are or "dense int8"."""
    bfloat16_error: LogitError
    """What transformers' own bfloat16 run of the same checkpoint gets wrong, at these positions."""


def load_prompts() -> tuple[Prompt, ...]:
    """Every golden prompt, the shortest first."""
    report = json.loads((FOLDER / "report.json").read_text())
    with np.load(FOLDER / "logits.npz") as arrays:
        return tuple(
            Prompt(
                name=name,
                token_ids=arrays[f"{name}.token_ids"].astype(np.int64),
                positions=arrays[f"{name}.positions"].astype(np.int64),
                logits=arrays[f"{name}.logits"],
                rounded_errors={
                    name: LogitError(**error) for name, error in entry["rounded"].items()
                },
                bfloat16_error=LogitError(**entry["transformers_bfloat16"]),
            )
            for name, entry in report["prompts"].items()
        )
