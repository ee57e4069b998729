"""Make the golden checkpoint, logits and report that lie beside this file.

    python -m tests.golden.make

- `checkpoint/`: `tests.make_checkpoint` with its default sizes and seed 0.
- `logits.npz`: for each prompt, token ids, positions, and transformers' float32 logits there.
- `report.json`: versions, and how far from those logits (as shares of their range) are the float64
  reference, the same with what our options round, and transformers' own bfloat16 run, which is the bound
  for our bfloat16 activations.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from tests.golden import CHECKPOINT, FOLDER
from tests.make_checkpoint import make_checkpoint
from tests.measure import logit_error
from tests.reference.model import (
    Stages,
    forward,
    forward_stages,
    read_checkpoint,
    round_dense_weights,
)

PROMPTS = {
    "single": (1, 1),
    "short": (7, 7),
    "window": (200, 200),  # passes the window of 128
    "yarn": (4200, 64),  # passes the original context of 4096
}
"""Tokens of each prompt, and at how many positions its logits are kept: the last half of them at the
very end, the others spread evenly before."""

MIN_ROUTER_MARGIN = 1e-3
"""Least distance of the last chosen router logit from the next, at every position kept.

Below it a rounding could choose another expert, which no tolerance allows for; a prompt that comes
closer is replaced by the next seed's. float32 moves a router logit by 2e-4 at most (RUN, 4200 tokens).
"""

MIN_TOP1_MARGIN = 4e-4
"""Least distance of the two largest logits as a share of the range: twice the float32 tolerance."""


def load_model(dtype: torch.dtype, folder: Path = CHECKPOINT) -> transformers.GptOssForCausalLM:
    """A checkpoint in transformers, all of it in one dtype.

    NOTE: `dtype=torch.float32` alone leaves dequantized experts in bfloat16 (transformers 5.12.1), and
    their inputs are then rounded to bfloat16 too: `to` makes it float32 in truth.
    """
    model = transformers.GptOssForCausalLM.from_pretrained(
        folder, quantization_config=transformers.Mxfp4Config(dequantize=True), dtype=dtype
    )
    return model.to(dtype).eval()


def run(model: transformers.GptOssForCausalLM, token_ids: NDArray[Any]) -> NDArray[np.float32]:
    """Logits [T, vocabulary] of one prompt."""
    with torch.inference_mode():
        output = model(torch.from_numpy(token_ids)[None], use_cache=False)
    return output.logits[0].float().numpy()


def kept_positions(tokens: int, kept: int) -> NDArray[np.int64]:
    """All positions, or as `PROMPTS` says."""
    if kept == tokens:
        return np.arange(tokens)
    last = np.arange(tokens - kept // 2, tokens)
    spread = np.linspace(0, last[0], kept - last.size, endpoint=False).astype(np.int64)
    return np.concatenate([spread, last])


def margins(stages: Stages, positions: NDArray[np.int64], top_k: int) -> tuple[float, float]:
    """Smallest router margin and smallest top-1 margin (share of the range) at some positions."""
    router = np.stack([layer.router_logits[positions] for layer in stages.layers])
    router = np.sort(router, axis=-1)
    logits = np.sort(stages.logits[positions], axis=-1)
    top1 = (logits[:, -1] - logits[:, -2]) / np.ptp(logits)
    return float((router[..., -top_k] - router[..., -top_k - 1]).min()), float(top1.min())


def main() -> None:
    """Make everything, replacing what is there."""
    shutil.rmtree(CHECKPOINT, ignore_errors=True)
    make_checkpoint(CHECKPOINT, seed=0)
    config, weights = read_checkpoint(CHECKPOINT)
    int8, mxfp8 = (round_dense_weights(weights, form) for form in ("int8", "mxfp8"))
    variants: dict[str, tuple[Any, ...]] = {  # activations of the experts, of dense layers
        "bfloat16": (weights, "bfloat16", "bfloat16"),
        "int8": (weights, "int8", "bfloat16"),
        "dense int8": (int8, "bfloat16", "bfloat16"),
        "dense mxfp8": (mxfp8, "bfloat16", "bfloat16"),
        "int8, dense int8": (int8, "int8", "int8"),
    }
    models = {dtype: load_model(dtype) for dtype in (torch.float32, torch.bfloat16)}

    arrays: dict[str, NDArray[Any]] = {}
    report: dict[str, Any] = {
        "made_with": {
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "prompts": {},
    }
    for name, (tokens, kept) in PROMPTS.items():
        positions = kept_positions(tokens, kept)
        seed = -1
        router_margin = top1_margin = 0.0
        while router_margin < MIN_ROUTER_MARGIN or top1_margin < MIN_TOP1_MARGIN:
            seed += 1
            token_ids = np.random.default_rng(seed).integers(0, config["vocab_size"], tokens)
            stages = forward_stages(config, weights, token_ids)
            router_margin, top1_margin = margins(stages, positions, config["num_experts_per_tok"])

        logits = run(models[torch.float32], token_ids)[positions]
        rounded = {
            name: logit_error(forward(config, w, token_ids, *activations)[positions], logits)
            for name, (w, *activations) in variants.items()
        }
        bfloat16_logits = run(models[torch.bfloat16], token_ids)[positions]
        arrays[f"{name}.token_ids"] = token_ids.astype(np.uint16)
        arrays[f"{name}.positions"] = positions.astype(np.uint16)
        arrays[f"{name}.logits"] = logits
        report["prompts"][name] = {
            "tokens": tokens,
            "positions": kept,
            "seed": seed,
            "logit_range": float(np.ptp(logits)),
            "router_margin": router_margin,
            "top1_margin": top1_margin,
            "reference_float64": dataclasses.asdict(logit_error(stages.logits[positions], logits)),
            "rounded": {name: dataclasses.asdict(error) for name, error in rounded.items()},
            "transformers_bfloat16": dataclasses.asdict(logit_error(bfloat16_logits, logits)),
        }
    np.savez_compressed(FOLDER / "logits.npz", allow_pickle=False, **arrays)
    (FOLDER / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
