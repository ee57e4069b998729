"""The tensors a config asks for, and what a checkpoint's entries have against a specification.

Names are those of the Hugging Face layout; others are checked in the same way. The experts of a
projection are three tensors: ``_blocks`` (two E2M1 codes a byte), ``_scales`` (one E8M0 byte per 32
codes) and ``_bias``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.layout import BF16_CURE, BLOCKS, PLAIN_EXPERTS, SCALES
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE

LM_HEAD = "lm_head.weight"
"""The output matrix; ``model.embed_tokens.weight`` serves instead where the config ties the two."""

MAX_FAULTS = 1000
"""Faults after which the rest are not looked for: a config that lies may ask for millions of tensors."""

_OTHER_MODEL_CURE = (
    "Take config.json and the weights from the same repository, and download both again"
)
_UNEXPECTED_CURE = (
    "Move a file that is no part of the model (an adapter, a copy) out of the folder; otherwise"
    " take config.json and the weights from the same repository"
)
_DTYPE_CURE = "Save it as published, nothing is cast here: dense tensors BF16, blocks and scales U8"
_PLAIN_DTYPE_CURE = "Save experts that are to be rounded as BF16, nothing is cast here"

_PER_EXPERT = re.compile(r".+\.mlp\.(experts|router)\.\w+")
"""Tensors with a part for each expert, one after the other."""


class TensorSpec(NamedTuple):
    """What a tensor must be: its safetensors dtype and its shape."""

    dtype: str
    shape: tuple[int, ...]


def expected_tensors(config: GptOssConfig) -> dict[str, TensorSpec]:
    """Lists every tensor of the model.

    Args:
        config: The checked config; ``head_dim`` is its own, never hidden_size / heads.

    Returns:
        Specification by name; no ``lm_head.weight`` where the config ties it to the embedding.
    """
    hidden, experts = config.hidden_size, config.num_local_experts
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = {
        "input_layernorm.weight": _bf16(hidden),
        "self_attn.q_proj.weight": _bf16(queries, hidden),
        "self_attn.q_proj.bias": _bf16(queries),
        "self_attn.k_proj.weight": _bf16(keys, hidden),
        "self_attn.k_proj.bias": _bf16(keys),
        "self_attn.v_proj.weight": _bf16(keys, hidden),
        "self_attn.v_proj.bias": _bf16(keys),
        "self_attn.o_proj.weight": _bf16(hidden, queries),
        "self_attn.o_proj.bias": _bf16(hidden),
        "self_attn.sinks": _bf16(config.num_attention_heads),
        "post_attention_layernorm.weight": _bf16(hidden),
        "mlp.router.weight": _bf16(experts, hidden),
        "mlp.router.bias": _bf16(experts),
        **_packed("mlp.experts.gate_up_proj", experts, 2 * config.intermediate_size, hidden),
        **_packed("mlp.experts.down_proj", experts, hidden, config.intermediate_size),
    }
    tensors = {"model.embed_tokens.weight": _bf16(config.vocab_size, hidden)}
    for i in range(config.num_hidden_layers):
        tensors |= {f"model.layers.{i}.{name}": spec for name, spec in layer.items()}
    tensors["model.norm.weight"] = _bf16(hidden)
    if not config.tie_word_embeddings:
        tensors[LM_HEAD] = _bf16(config.vocab_size, hidden)
    return tensors


def check_tensors(
    specs: Iterable[tuple[str, TensorSpec]], entries: Mapping[str, TensorEntry], where: str | Path
) -> None:
    """Holds a checkpoint's entries against a specification.

    Args:
        specs: Name and specification of every tensor that must be there; no other may.
        entries: What the files' headers hold.
        where: What the error calls the checkpoint.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, mistyped or misshapen: all in one, or
            the first ``MAX_FAULTS``.
    """
    faults: list[Fault] = []
    expected = set()
    for name, spec in specs:
        expected.add(name)
        if name in entries:
            faults += _entry_faults(entries[name], spec)
        else:
            faults += _absence_faults(name, entries)
        if len(faults) >= MAX_FAULTS:
            raise CheckpointError(where, faults)
    for name, entry in entries.items():
        if name in expected or (name + BLOCKS in expected and _is_plain(name, entries)):
            continue
        text = f"{quoted(name)} in {entry.file.name} must not be there: the model does not use it"
        faults.append(Fault("unexpected tensor", text, _UNEXPECTED_CURE))
        if len(faults) >= MAX_FAULTS:
            break
    if faults:
        raise CheckpointError(where, faults)


def _bf16(*shape: int) -> TensorSpec:
    return TensorSpec("BF16", shape)


def _packed(name: str, experts: int, n: int, k: int) -> dict[str, TensorSpec]:
    """One projection of all experts, [E, n, k] in MXFP4: groups lie along k."""
    groups = k // GROUP_SIZE
    return {
        name + BLOCKS: TensorSpec("U8", (experts, n, groups, BYTES_PER_GROUP)),
        name + SCALES: TensorSpec("U8", (experts, n, groups)),
        name + "_bias": _bf16(experts, n),
    }


def _is_plain(name: str, entries: Mapping[str, TensorEntry]) -> bool:
    """Whether a projection's experts are there unquantized, in place of its blocks."""
    return name in entries and name + BLOCKS not in entries


def _absence_faults(name: str, entries: Mapping[str, TensorEntry]) -> Iterator[Fault]:
    base = name.removesuffix(BLOCKS).removesuffix(SCALES)
    other = base + (BLOCKS if name.endswith(SCALES) else SCALES)
    if _is_plain(base, entries):
        if name.endswith(BLOCKS):  # one fault serves for blocks and scales
            text = f"{base} must be MXFP4 ({name}), got {entries[base].dtype}"
            yield Fault("BF16 experts", text, BF16_CURE)
    elif base != name and other in entries:
        kind = "blocks without scales" if name.endswith(SCALES) else "scales without blocks"
        text = f"{other} must have {name} beside it, which is missing"
        cure = "One means nothing without the other: download the checkpoint again"
        yield Fault(kind, text, cure)
    else:
        text = f"{name} must be there, is missing"
        yield Fault("missing tensor", text, _OTHER_MODEL_CURE)


def _entry_faults(entry: TensorEntry, spec: TensorSpec) -> Iterator[Fault]:
    file = entry.file.name
    if entry.dtype != spec.dtype:
        text = f"{entry.name} must be {spec.dtype}, got {entry.dtype} in {file}"
        cure = _PLAIN_DTYPE_CURE if entry.name.endswith(PLAIN_EXPERTS) else _DTYPE_CURE
        yield Fault("wrong dtype", text, cure)
    if entry.shape == spec.shape:
        return
    if _PER_EXPERT.fullmatch(entry.name) and entry.shape and entry.shape[1:] == spec.shape[1:]:
        rule = f"{entry.name} must have num_local_experts = {spec.shape[0]} experts"
        text = f"{rule}, got {entry.shape[0]} in {file}"
        yield Fault("wrong expert count", text, _OTHER_MODEL_CURE)
    else:
        text = f"{entry.name} must be {list(spec.shape)}, got {list(entry.shape)} in {file}"
        yield Fault("wrong shape", text, _OTHER_MODEL_CURE)
