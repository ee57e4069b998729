"""Measures Hugging Face transformers on a checkpoint, in a process of its own, as `gpt-oss-mxfp4 bench` does here.

    python benchmarks/cpu/transformers_side.py FOLDER --json FILE [--prompt-tokens N] [--new-tokens N] [--batch N ...]
    python benchmarks/cpu/transformers_side.py FOLDER --logits FILE.npy --tokens FILE.json

Needs torch. Without a GPU transformers computes with experts that were dequantized: for gpt-oss-20b that takes 40 GB in
BF16, so this is for small models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.cpu.side import run_side, side_parser
from gpt_oss_mxfp4.measurement import Subject


class Transformers:
    """A model in transformers.

    Args:
        folder: the checkpoint.
        dtype: of weights and activations: "float32" or "bfloat16".
        threads: of torch.
    """

    def __init__(self, folder: Path, *, dtype: str, threads: int) -> None:
        torch.set_num_threads(threads)
        model = transformers.GptOssForCausalLM.from_pretrained(
            folder,
            quantization_config=transformers.Mxfp4Config(dequantize=True),
            dtype=getattr(torch, dtype),
        )
        # Dequantized experts stay in bfloat16 unless they are told (NOTES F6).
        self._model = model.to(getattr(torch, dtype)).eval()
        self.vocab_size: int = model.config.vocab_size
        self.subject = Subject(
            engine="transformers",
            versions={"transformers": transformers.__version__, "torch": torch.__version__},
            model=folder.name,
            options={"dtype": dtype},
            threads=threads,
            weight_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        )

    @torch.inference_mode()
    def stream(self, prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        """Continues prompts of one length by their likeliest tokens.

        Args:
            prompts: token ids of each sequence.
            new_tokens: of each sequence.

        Yields:
            The next token of each sequence.
        """
        cache, tokens = None, torch.tensor(prompts)
        for _ in range(new_tokens):
            output = self._model(tokens, use_cache=True, past_key_values=cache, logits_to_keep=1)
            cache, tokens = output.past_key_values, output.logits[:, -1:].argmax(dim=-1)
            yield tokens[:, 0].tolist()

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        """Gives [tokens, vocabulary] logits at every position of one sequence."""
        output = self._model(torch.tensor([tokens]), use_cache=False)
        logits: NDArray[np.float32] = output.logits[0].float().numpy()
        return logits


def main() -> int:
    """Measure, or give logits."""
    parser = side_parser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    run_side(
        arguments,
        lambda: Transformers(arguments.model, dtype=arguments.dtype, threads=arguments.threads),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
