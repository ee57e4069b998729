"""Write a synthetic gpt-oss-20b or -120b: real names, shapes and sizes, random weights.

    python scripts/make_synthetic.py FOLDER [--size 20b|120b] [--layers N] [--seed N] [--force]

For measuring speed and memory where the published weights (14 GB, 65 GB) cannot be had. The folder is a
complete checkpoint in the Hugging Face layout. Every token id decodes to a made-up word, so that
generated text can be seen; text encodes to one token per byte. Activations stay finite; the text means
nothing. Files get their names only when all are complete.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from statistics import NormalDist
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from gpt_oss_mxfp4.checkpoint.layout import QUANTIZATION_CONFIG

CHUNK_BYTES = 32 * 2**20
"""What is made and written at a time: the most memory this needs, a few times over."""

MAX_SHARD_BYTES = 5 * 10**9

SCALE_BYTES = (117, 122)
"""Random E8M0 scales, 2^-10 to 2^-6: with random E2M1 codes, of root mean square 2.9, a weight's is
0.024, and a sum over 2880 of them keeps the size of its input."""

DAMPING = 3
"""What a layer adds to the residual stream is 2^-3 of what it would be: about 1/sqrt(2 x layers), as GPT-2 begins its
training. Without it 24 layers of random weights are chaotic: one rounding chooses another expert somewhere, and all
that follows is different, so that no two engines agree on a token (NOTES N32)."""

VOCAB_SIZE = 201088
FIRST_SPECIAL_ID = 199998
SPECIAL_TOKENS = {
    199998: "<|startoftext|>",
    199999: "<|endoftext|>",
    200002: "<|return|>",
    200003: "<|constrain|>",
    200005: "<|channel|>",
    200006: "<|start|>",
    200007: "<|end|>",
    200008: "<|message|>",
    200012: "<|call|>",
    200018: "<|endofprompt|>",
}
"""gpt-oss's special tokens; the other ids from 199998 on are reserved."""


@dataclass(frozen=True)
class Sizes:
    """The fields of config.json in which checkpoints differ."""

    num_hidden_layers: int = 24
    num_local_experts: int = 32
    hidden_size: int = 2880
    intermediate_size: int = 2880
    num_attention_heads: int = 64
    num_key_value_heads: int = 8


SIZES = {"20b": Sizes(), "120b": Sizes(num_hidden_layers=36, num_local_experts=128)}


@dataclass(frozen=True)
class Tensor:
    """One tensor to write."""

    name: str
    dtype: str
    """"BF16" or "U8", as safetensors spells them."""
    shape: tuple[int, ...]
    mean: float = 0.0
    spread: float = 0.0
    """Of a BF16 tensor's normal values."""

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * (2 if self.dtype == "BF16" else 1)


def list_tensors(sizes: Sizes) -> Iterator[Tensor]:
    """Every tensor of the checkpoint, in the order in which they are written."""
    hidden, intermediate, experts = (
        sizes.hidden_size,
        sizes.intermediate_size,
        sizes.num_local_experts,
    )
    queries, keys = sizes.num_attention_heads * 64, sizes.num_key_value_heads * 64

    def matrix(name: str, n: int, k: int, damping: int = 0) -> Tensor:
        return Tensor(f"{name}.weight", "BF16", (n, k), spread=2**-damping / math.sqrt(k))

    def bias(name: str, *shape: int) -> Tensor:
        return Tensor(name, "BF16", shape, spread=0.1)

    def norm(name: str) -> Tensor:
        return Tensor(f"{name}.weight", "BF16", (hidden,), mean=1.0)

    yield Tensor("model.embed_tokens.weight", "BF16", (VOCAB_SIZE, hidden), spread=1.0)
    for i in range(sizes.num_hidden_layers):
        layer = f"model.layers.{i}"
        yield norm(f"{layer}.input_layernorm")
        for projection, n, k, damping in (
            ("q_proj", queries, hidden, 0),
            ("k_proj", keys, hidden, 0),
            ("v_proj", keys, hidden, 0),
            ("o_proj", hidden, queries, DAMPING),
        ):
            yield matrix(f"{layer}.self_attn.{projection}", n, k, damping)
            yield bias(f"{layer}.self_attn.{projection}.bias", n)
        yield Tensor(f"{layer}.self_attn.sinks", "BF16", (sizes.num_attention_heads,), spread=1.0)
        yield norm(f"{layer}.post_attention_layernorm")
        yield matrix(f"{layer}.mlp.router", experts, hidden)
        yield bias(f"{layer}.mlp.router.bias", experts)
        for projection, n, k in (
            ("gate_up_proj", 2 * intermediate, hidden),
            ("down_proj", hidden, intermediate),
        ):
            name = f"{layer}.mlp.experts.{projection}"
            yield Tensor(f"{name}_blocks", "U8", (experts, n, k // 32, 16))
            yield Tensor(f"{name}_scales", "U8", (experts, n, k // 32))
            yield bias(f"{name}_bias", experts, n)
    yield norm("model.norm")
    yield matrix("lm_head", VOCAB_SIZE, hidden)


def split_shards(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Runs of tensors of at most `MAX_SHARD_BYTES` each, in order; one larger tensor stands alone."""
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors:
        filled = sum(other.num_bytes for other in shards[-1])
        if shards[-1] and filled + tensor.num_bytes > MAX_SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def random_chunks(tensor: Tensor, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    """A tensor's data in order, a chunk at a time."""
    if tensor.dtype == "BF16":
        # A table of 2^16 equally likely values: drawing an index is several times faster than
        # drawing a normal value and rounding it.
        quantiles = [NormalDist().inv_cdf((i + 0.5) / 2**16) for i in range(2**16)]
        table = bfloat16_bits(tensor.mean + tensor.spread * np.array(quantiles))
    remaining = tensor.num_bytes
    chunk: NDArray[Any]
    while remaining:
        num_bytes = min(remaining, CHUNK_BYTES)
        if tensor.name.endswith("_scales"):
            damping = DAMPING if "down_proj" in tensor.name else 0
            chunk = rng.integers(*SCALE_BYTES, num_bytes, np.uint8)
            chunk -= damping
        else:
            words = rng.integers(2**64, size=-(-num_bytes // 8), dtype=np.uint64)
            chunk = words.view(np.uint8)[:num_bytes]
            if tensor.dtype == "BF16":
                chunk = table[chunk.view(np.uint16)]
        yield chunk
        remaining -= num_bytes


def bfloat16_bits(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 of finite values."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write_shard(path: Path, tensors: list[Tensor], seed: int, progress: "Progress") -> None:
    """One safetensors file: header length, JSON header, data.

    Each tensor has its own random stream, of the seed and its name, so that a checkpoint cut to fewer
    layers holds the same first layers.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            rng = np.random.default_rng([seed, *tensor.name.encode()])
            for chunk in random_chunks(tensor, rng):
                file.write(chunk.data)
                progress.add(chunk.nbytes)


class Progress:
    """A line on standard error: share done, bytes, bytes per second."""

    def __init__(self, total_bytes: int, stream: TextIO = sys.stderr) -> None:
        """Start the clock."""
        self.total_bytes = total_bytes
        self.stream = stream
        self.done_bytes = 0
        self.start = self.shown = time.monotonic()

    def add(self, num_bytes: int) -> None:
        """Count what was written; show it five times a second, or every ten in a log."""
        self.done_bytes += num_bytes
        terminal = self.stream.isatty()
        now = time.monotonic()
        if now - self.shown < (0.2 if terminal else 10) and self.done_bytes < self.total_bytes:
            return
        self.shown = now
        line = (
            f"{self.done_bytes / self.total_bytes:4.0%}  "
            f"{self.done_bytes / 1e9:.1f} of {self.total_bytes / 1e9:.1f} GB  "
            f"{self.done_bytes / 1e9 / max(now - self.start, 1e-9):.2f} GB/s"
        )
        last = self.done_bytes == self.total_bytes
        self.stream.write(f"\r{line}" + ("\n" if last else "") if terminal else f"{line}\n")
        self.stream.flush()


def write_metadata(folder: Path, sizes: Sizes) -> None:
    """config.json and generation_config.json, as the published repositories spell them."""
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        **asdict(sizes),
        "head_dim": 64,
        "vocab_size": VOCAB_SIZE,
        "num_experts_per_tok": 4,
        "experts_per_token": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * (sizes.num_hidden_layers // 2)
        + ["sliding_attention"] * (sizes.num_hidden_layers % 2),
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "swiglu_limit": 7.0,
        "rms_norm_eps": 1e-05,
        "rope_theta": 150000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
        },
        "initial_context_length": 4096,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "eos_token_id": 200002,
        "pad_token_id": 199999,
        "quantization_config": QUANTIZATION_CONFIG,
        "use_cache": True,
    }
    generation_config = {
        "bos_token_id": 199998,
        "do_sample": True,
        "eos_token_id": [200002, 199999, 200012],
        "pad_token_id": 199999,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation_config)


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json: 256 bytes, made-up words, gpt-oss's special tokens."""
    consonants, vowels = "bdfghjklmnprstvwz", "aeiou"
    syllables = [c + v for c, v in product(consonants, vowels)]
    words = (
        "Ġ" + "".join(word)  # the byte-level spelling of a leading space
        for length in (1, 2, 3)
        for word in product(syllables, repeat=length)
    )
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += islice(words, FIRST_SPECIAL_ID - len(tokens))
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(SPECIAL_TOKENS.get(i, f"<|reserved_{i}|>"), normalized=False)
            for i in range(FIRST_SPECIAL_ID, VOCAB_SIZE)
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", tokenizer_config)


def write_json(path: Path, value: Any) -> None:
    """A value as an indented JSON file."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def make_synthetic(folder: Path, sizes: Sizes, seed: int = 0, force: bool = False) -> None:
    """Write the checkpoint.

    Args:
        folder: created if absent.
        sizes: one of `SIZES`, or that with fewer layers.
        seed: of the weights; the same seed and sizes give the same bytes.
        force: replace the checkpoint that is there, once the new one is complete.

    Raises:
        FileExistsError: a checkpoint is there and `force` was not given.
        OSError: the disk has too little free space; nothing was written.
    """
    replaced = [*folder.glob("config.json"), *folder.glob("model*.safetensors*")]
    if replaced and not force:
        raise FileExistsError(
            f"make_synthetic: {folder} must hold no checkpoint, got {replaced[0].name}; "
            "choose another folder, or --force to replace it"
        )
    shards = split_shards(list(list_tensors(sizes)))
    total_bytes = sum(tensor.num_bytes for shard in shards for tensor in shard)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < total_bytes + 2**28:  # and room for the tokenizer and for others
        raise OSError(
            f"make_synthetic: {existing} must have {(total_bytes + 2**28) / 1e9:.1f} GB free, "
            f"got {free_bytes / 1e9:.1f} GB"
        )

    partial = folder / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        weight_map: dict[str, str] = {}
        progress = Progress(total_bytes)
        for number, shard in enumerate(shards, start=1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
            write_shard(partial / name, shard, seed, progress)
            weight_map |= {tensor.name: name for tensor in shard}
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        write_json(partial / "model.safetensors.index.json", index)
        write_tokenizer(partial)
        write_metadata(partial, sizes)
        for path in replaced:
            path.unlink()
        for path in sorted(partial.iterdir(), reverse=True):  # config.json last
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial)


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="20b")
    parser.add_argument("--layers", type=int, help="cut the model to its first layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace a checkpoint that is there")
    arguments = parser.parse_args()
    sizes = asdict(SIZES[arguments.size])
    if arguments.layers is not None:
        if not 1 <= arguments.layers <= sizes["num_hidden_layers"]:
            parser.error(f"--layers must be 1 to {sizes['num_hidden_layers']}")
        sizes["num_hidden_layers"] = arguments.layers
    try:
        make_synthetic(arguments.folder, Sizes(**sizes), arguments.seed, arguments.force)
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
