"""Write a checkpoint's twin as a GGUF file, for llama.cpp: the same experts bit for bit, dense weights as BF16 or Q8_0.

    ./run python benchmarks/cpu/gguf_twin.py FOLDER FILE.gguf [--dense bf16|q8_0]

The twin has no vocabulary: it takes and gives token ids.

llama.cpp rounds the ends of YaRN's ramp to whole dimensions whatever `truncate` says, and has no key for it. In logits
of 200 tokens that is less than its rounding of activations to 8 bits (NOTES N30).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import MODEL_ARCH, MODEL_TENSOR, TENSOR_NAMES, GGMLQuantizationType
from numpy.typing import NDArray

from benchmarks.cpu.gguf_blocks import Bytes, repack_mxfp4
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.schema import LM_HEAD
from gpt_oss_mxfp4.config import FULL, SLIDING, GptOssConfig
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE

DENSE = {"bf16": GGMLQuantizationType.BF16, "q8_0": GGMLQuantizationType.Q8_0}
"""What matrices outside of the experts are stored as; the router's, like every vector, is float32."""

ROWS_AT_ONCE = 16384
"""Rows of a matrix that are quantized at a time, which bounds the memory."""

SWIGLU_LIMIT = 7.0
"""llama.cpp has it, and alpha = 1.702, as constants."""

EMBEDDING = "model.embed_tokens.weight"


class NoTwin(Exception):
    """llama.cpp would compute something else from this checkpoint; the text says what."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the twin.

    Args:
        name: llama.cpp's name of it.
        dtype: how it is stored.
        shape: in elements, the reduced axis last.
        make: gives the stored bytes, [rows, bytes of a row] in as many pieces as it likes.
    """

    name: str
    dtype: GGMLQuantizationType
    shape: tuple[int, ...]
    make: Callable[[], Iterator[Bytes]]

    @property
    def byte_shape(self) -> tuple[int, ...]:
        """Shape of the stored bytes: what the reduced axis takes in place of its elements."""
        return gguf.quant_shape_to_byte_shape(self.shape, self.dtype)


def check_twin(config: GptOssConfig) -> None:
    """Refuses what llama.cpp has fixed otherwise than this checkpoint wants it.

    Args:
        config: the checkpoint's.

    Raises:
        NoTwin: the twin would be another model.
    """
    alternating = tuple(FULL if i % 2 else SLIDING for i in range(config.num_hidden_layers))
    usual_factor = 0.1 * math.log(config.rope.factor) + 1
    wanted = {
        "layer_types": (alternating, config.layer_types),
        "swiglu_limit": (SWIGLU_LIMIT, config.swiglu_limit),
        "attention_factor": (usual_factor, config.rope.attention_factor),
    }
    for key, (fixed, got) in wanted.items():
        if fixed != got:
            raise NoTwin(
                f"{key} must be {fixed}, got {got}: llama.cpp has no other; compare another checkpoint"
            )


def list_tensors(checkpoint: Checkpoint, dense: str) -> Iterator[Tensor]:
    """Every tensor of the twin, in the order of the file.

    Args:
        checkpoint: what is copied; its weights are mapped, and read when a tensor is made.
        dense: a key of `DENSE`.
    """
    config = checkpoint.config

    def name(tensor: MODEL_TENSOR, ending: str, layer: int | None = None) -> str:
        return f"{TENSOR_NAMES[tensor].format(bid=layer)}.{ending}"

    def vector(target: str, source: str, rows: slice = slice(None)) -> Tensor:
        values = _mapped(checkpoint, source)[..., rows]
        return _stored(target, GGMLQuantizationType.F32, values)

    def matrix(target: str, source: str) -> Tensor:
        return _stored(target, DENSE[dense], _mapped(checkpoint, source))

    def experts(target: str, source: str, rows: slice = slice(None)) -> Tensor:
        blocks = _mapped(checkpoint, f"{source}_blocks")[:, rows]
        scales = _mapped(checkpoint, f"{source}_scales")[:, rows]
        return Tensor(
            target,
            GGMLQuantizationType.MXFP4,
            (*scales.shape[:-1], scales.shape[-1] * GROUP_SIZE),
            lambda: (repack_mxfp4(b, s) for b, s in zip(blocks, scales, strict=True)),
        )

    gate, up = slice(0, None, 2), slice(1, None, 2)
    yield matrix(name(MODEL_TENSOR.TOKEN_EMBD, "weight"), EMBEDDING)
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        yield vector(name(MODEL_TENSOR.ATTN_NORM, "weight", i), f"{layer}.input_layernorm.weight")
        for projection, tensor in (
            ("q_proj", MODEL_TENSOR.ATTN_Q),
            ("k_proj", MODEL_TENSOR.ATTN_K),
            ("v_proj", MODEL_TENSOR.ATTN_V),
            ("o_proj", MODEL_TENSOR.ATTN_OUT),
        ):
            source = f"{layer}.self_attn.{projection}"
            yield matrix(name(tensor, "weight", i), f"{source}.weight")
            yield vector(name(tensor, "bias", i), f"{source}.bias")
        yield vector(name(MODEL_TENSOR.ATTN_SINKS, "weight", i), f"{layer}.self_attn.sinks")
        yield vector(
            name(MODEL_TENSOR.ATTN_POST_NORM, "weight", i),
            f"{layer}.post_attention_layernorm.weight",
        )
        router, projections = f"{layer}.mlp.router", f"{layer}.mlp.experts"
        yield vector(name(MODEL_TENSOR.FFN_GATE_INP, "weight", i), f"{router}.weight")
        yield vector(name(MODEL_TENSOR.FFN_GATE_INP, "bias", i), f"{router}.bias")
        for source, tensor, rows in (
            (f"{projections}.gate_up_proj", MODEL_TENSOR.FFN_GATE_EXP, gate),
            (f"{projections}.gate_up_proj", MODEL_TENSOR.FFN_UP_EXP, up),
            (f"{projections}.down_proj", MODEL_TENSOR.FFN_DOWN_EXP, slice(None)),
        ):
            yield experts(name(tensor, "weight", i), source, rows)
            yield vector(name(tensor, "bias", i), f"{source}_bias", rows)
    yield vector(name(MODEL_TENSOR.OUTPUT_NORM, "weight"), "model.norm.weight")
    head = EMBEDDING if config.tie_word_embeddings else LM_HEAD
    yield matrix(name(MODEL_TENSOR.OUTPUT, "weight"), head)


def _mapped(checkpoint: Checkpoint, name: str) -> NDArray[Any]:
    """A tensor in the checkpoint's file: uint8, or the bits of bfloat16 as uint16."""
    entry = checkpoint.entries[name]
    dtype = np.uint16 if entry.dtype == "BF16" else np.uint8
    # Mapped as bytes first: NumPy wants no alignment of a view, and the format promises none.
    data = np.memmap(entry.file, np.uint8, "r", entry.begin, (entry.nbytes,))
    return data.view(dtype).reshape(entry.shape)


def _stored(name: str, dtype: GGMLQuantizationType, bits: NDArray[np.uint16]) -> Tensor:
    """A bfloat16 tensor as another dtype, a run of rows at a time."""

    def make() -> Iterator[Bytes]:
        rows = bits.reshape(-1, bits.shape[-1])
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            some = np.ascontiguousarray(rows[begin : begin + ROWS_AT_ONCE])
            if dtype == GGMLQuantizationType.BF16:
                yield some.view(np.uint8)
            else:
                values = (some.astype(np.uint32) << 16).view(np.float32)
                yield gguf.quantize(values, dtype).view(np.uint8)

    return Tensor(name, dtype, bits.shape, make)


def write_twin(checkpoint: Checkpoint, path: Path, dense: str) -> None:
    """Writes the twin.

    Args:
        checkpoint: what is copied.
        path: the file; it gets its name when it is complete.
        dense: a key of `DENSE`.

    Raises:
        NoTwin: llama.cpp cannot compute this checkpoint.
    """
    check_twin(checkpoint.config)
    unfinished = path.with_name(f".{path.name}.unfinished")
    writer = gguf.GGUFWriter(unfinished, gguf.MODEL_ARCH_NAMES[MODEL_ARCH.GPT_OSS])
    _add_metadata(writer, checkpoint.config)
    tensors = list(list_tensors(checkpoint, dense))
    for tensor in tensors:
        size = math.prod(tensor.byte_shape)
        writer.add_tensor_info(
            tensor.name, tensor.byte_shape, np.dtype(np.uint8), size, tensor.dtype
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    [file] = writer.fout
    for tensor in tensors:
        # The writer's own call wants a whole tensor in memory; an embedding is 1.2 GB, twice that as float32.
        writer.write_padding(file, file.tell())
        for piece in tensor.make():
            file.write(np.ascontiguousarray(piece).data)
    writer.write_padding(file, file.tell())
    writer.close()
    unfinished.rename(path)


def _add_metadata(writer: gguf.GGUFWriter, config: GptOssConfig) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_expert_feed_forward_length(config.intermediate_size)
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_sliding_window(config.sliding_window)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(config.rope.factor)
    writer.add_rope_scaling_orig_ctx_len(config.rope.original_max_position_embeddings)
    writer.add_rope_scaling_yarn_beta_fast(config.rope.beta_fast)
    writer.add_rope_scaling_yarn_beta_slow(config.rope.beta_slow)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)


def main() -> int:
    """Write the twin that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a checkpoint of this package")
    parser.add_argument("file", type=Path, metavar="FILE.gguf", help="the file to write")
    parser.add_argument("--dense", choices=DENSE, default="bf16", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        write_twin(open_checkpoint(arguments.folder), arguments.file, arguments.dense)
    except (CheckpointError, NoTwin, OSError) as error:
        print(f"gguf_twin: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
