"""Write a small gpt-oss checkpoint in the Hugging Face layout, by transformers itself.

Random weights, but ones under which every part of the model matters: experts, router, sinks, biases,
norms, the clamp, the window and the rotation each move the logits far beyond any tolerance
(`tests/reference/test_model.py` shows it). All names, dtypes, shards and the index are written by
transformers; only the experts are packed here, by `tests.reference.mxfp4.quantize`.

    python -m tests.make_checkpoint FOLDER [--layers N] [--seed N]
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.reference.mxfp4 import GROUP_SIZE, quantize

SIZES: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 192,  # 128 + 64, as 2880 is 22 * 128 + 64: a tail in every tile
    "intermediate_size": 160,  # five groups of 32, an odd number
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,  # 4 * 64 is not hidden_size, as in the real models
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "vocab_size": 384,
}
"""What differs from gpt-oss-20b; YaRN, window, theta and epsilon are the real ones."""

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
    "<|endofprompt|>",
)
"""The special tokens of gpt-oss, in their order, as the last ids of the vocabulary."""

DENSE_RULES = {
    "embed_tokens.weight": (0.0, 1.0),
    "q_proj.weight": (0.0, 0.8),
    "k_proj.weight": (0.0, 0.8),
    "v_proj.weight": (0.0, 1.0),
    "o_proj.weight": (0.0, 1.5),
    "sinks": (6.0, 2.0),  # near the log of a row's summed exponentials, so that they take a share
    "router.weight": (0.0, 2.0),  # decisive: rounding must not change the choice
    "lm_head.weight": (0.0, 2.0),
    "norm.weight": (1.0, 0.2),
    "bias": (0.0, 0.3),
}
"""Mean and spread of each kind of tensor that is not packed; the first ending that fits counts.

A projection's spread is further divided by the root of its inputs' number.
"""

TOKENIZER_TEXT = """
The keeper of the lighthouse counted the ships that passed in the night, and wrote the number of each
one in a book with a red cover. When the wind was strong the light had to be watched until morning;
when it was calm there was time to read. Nobody asked for the book, and nobody but the keeper knew how
many ships there had been. After some years the numbers filled every page, so the keeper began again at
the first page, writing between the lines in another colour, and the book went on for as long as before.
"""
"""What the tokenizer learns its merges from."""


def make_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    max_shard_size: str = "1MB",
    chat_template: str | None = None,
    **config: Any,
) -> None:
    """Write config, shards, index, generation config and tokenizer into a folder.

    Args:
        folder: created if absent; files of the same names are replaced.
        seed: of the weights; the same seed and sizes give the same bytes.
        max_shard_size: as transformers takes it; the default makes four shards of `SIZES`.
        chat_template: a Jinja text for the tokenizer, which has none otherwise.
        config: fields of `GptOssConfig` that replace those of `SIZES`.
    """
    sizes = {**SIZES, **config}
    tokenizer = make_tokenizer(sizes["vocab_size"])
    tokenizer.chat_template = chat_template
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    model_config = GptOssConfig(
        **sizes,
        swiglu_limit=7.0,
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|return|>"],
        quantization_config={
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
    )
    model = GptOssForCausalLM(model_config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|startoftext|>"],
        eos_token_id=[ids["<|return|>"], ids["<|endoftext|>"], ids["<|call|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )

    rng = np.random.default_rng(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if name.endswith((".gate_up_proj", ".down_proj")):
            # transformers holds experts as [E, K, N]; the checkpoint has the reduced axis last.
            experts, k, n = parameter.shape
            blocks, scales = quantize(random_expert(rng, name, (experts, n, k)))
            tensors[f"{name}_blocks"] = torch.from_numpy(blocks)
            tensors[f"{name}_scales"] = torch.from_numpy(scales)
        else:
            values = random_dense(rng, name, tuple(parameter.shape))
            tensors[name] = torch.from_numpy(values).to(torch.bfloat16)
    model.save_pretrained(folder, state_dict=tensors, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)


def random_expert(
    rng: np.random.Generator, name: str, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Weights [E, N, K] of one projection, of a size that differs from group to group."""
    # gate_up: some gates pass the clamp at 7. down: the sum is as large as the residual stream.
    gain = 1.8 if name.endswith("gate_up_proj") else 0.2
    group_shape = (*shape[:2], shape[2] // GROUP_SIZE)
    group_gain = np.exp2(rng.integers(-1, 2, group_shape)).repeat(GROUP_SIZE, axis=-1)
    return gain / math.sqrt(shape[2]) * group_gain * rng.standard_normal(shape)


def random_dense(
    rng: np.random.Generator, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """A tensor that is not packed, with the mean and spread that its place in the model asks for."""
    mean, spread = next(rule for suffix, rule in DENSE_RULES.items() if name.endswith(suffix))
    if name.endswith(("_proj.weight", "router.weight", "lm_head.weight")):
        spread /= math.sqrt(shape[-1])
    return (mean + spread * rng.standard_normal(shape)).astype(np.float32)


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that can encode any text, the special tokens last.

    Args:
        vocab_size: of all tokens; at least 256 + the special ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TOKENIZER_TEXT], trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"make_checkpoint: vocab_size must be one that TOKENIZER_TEXT can fill, got {vocab_size}: "
            f"{tokenizer.get_vocab_size()} tokens"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_checkpoint(arguments.folder, seed=arguments.seed, num_hidden_layers=arguments.layers)


if __name__ == "__main__":
    main()
