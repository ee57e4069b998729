"""OpenAI's own layout, that of the published ``original/`` folders, as a bijection with Hugging Face's.

Names are renamed; q, k and v are the rows of one matrix, in this order. Nothing is permuted: both layouts have gate
and up rows in turn, and both rotate a head's first half against its second (NOTES F55).
Source: openai/gpt-oss, ``gpt_oss/torch/model.py`` and ``weights.py``; transformers'
``convert_gpt_oss_weights_to_hf.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.schema import LM_HEAD, TensorSpec
from gpt_oss_mxfp4.convert.plan import Output, Piece, copied, split

_MODEL = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.scale",
    LM_HEAD: "unembedding.weight",
}

_LAYER = {
    "input_layernorm.weight": "attn.norm.scale",
    "self_attn.q_proj.weight": "attn.qkv.weight",
    "self_attn.k_proj.weight": "attn.qkv.weight",
    "self_attn.v_proj.weight": "attn.qkv.weight",
    "self_attn.q_proj.bias": "attn.qkv.bias",
    "self_attn.k_proj.bias": "attn.qkv.bias",
    "self_attn.v_proj.bias": "attn.qkv.bias",
    "self_attn.o_proj.weight": "attn.out.weight",
    "self_attn.o_proj.bias": "attn.out.bias",
    "self_attn.sinks": "attn.sinks",
    "post_attention_layernorm.weight": "mlp.norm.scale",
    "mlp.router.weight": "mlp.gate.weight",
    "mlp.router.bias": "mlp.gate.bias",
    "mlp.experts.gate_up_proj_blocks": "mlp.mlp1_weight.blocks",
    "mlp.experts.gate_up_proj_scales": "mlp.mlp1_weight.scales",
    "mlp.experts.gate_up_proj_bias": "mlp.mlp1_bias",
    "mlp.experts.down_proj_blocks": "mlp.mlp2_weight.blocks",
    "mlp.experts.down_proj_scales": "mlp.mlp2_weight.scales",
    "mlp.experts.down_proj_bias": "mlp.mlp2_bias",
}

_IN_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_QKV = re.compile(r"(.+\.self_attn\.)[qkv](_proj\.(?:weight|bias))")


def original_name(name: str) -> str:
    """The name, in the original layout, of the tensor that holds a tensor of Hugging Face's."""
    match = _IN_LAYER.fullmatch(name)
    return f"block.{match[1]}.{_LAYER[match[2]]}" if match else _MODEL[name]


def original_tensors(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The specification of the original layout that goes with Hugging Face's.

    Args:
        tensors: those of a model, from ``expected_tensors``; with an output matrix of its own.
    """
    specs: dict[str, TensorSpec] = {}
    for name, spec in tensors.items():
        original = original_name(name)
        rows = spec.shape[0] + (specs[original].shape[0] if original in specs else 0)
        specs[original] = TensorSpec(spec.dtype, (rows, *spec.shape[1:]))
    return specs


def from_original(
    tensors: Mapping[str, TensorSpec], entries: Mapping[str, TensorEntry], experts: int
) -> dict[str, Output]:
    """Plans tensors of Hugging Face's layout from those of the original.

    Args:
        tensors: what is to be made, in order.
        entries: the original's, checked against :func:`original_tensors`.
        experts: how many a layer has.
    """
    row: dict[str, int] = {}
    outputs = {}
    for name, spec in tensors.items():
        entry = entries[original_name(name)]
        if _QKV.fullmatch(name):
            begin = row.get(entry.name, 0)
            row[entry.name] = begin + spec.shape[0]
            row_bytes = entry.nbytes // entry.shape[0]
            pieces: tuple[Piece, ...] = (
                copied(entry, begin * row_bytes, row[entry.name] * row_bytes),
            )
        else:
            pieces = split(entry, experts if ".mlp.experts." in name else 1)
        outputs[name] = Output(name, spec.dtype, spec.shape, pieces)
    return outputs


def to_original(outputs: Mapping[str, Output]) -> dict[str, Output]:
    """Plans tensors of the original layout from those planned in Hugging Face's.

    An output matrix that is the embedding is written as its own copy: the original layout cannot tie them.
    """
    outputs = dict(outputs)
    outputs.setdefault(LM_HEAD, outputs["model.embed_tokens.weight"])
    fused: dict[str, Output] = {}
    for name, output in outputs.items():
        original = original_name(name)
        before = fused.get(original)
        rows = output.shape[0] + (before.shape[0] if before else 0)
        pieces = (before.pieces if before else ()) + output.pieces
        fused[original] = Output(
            original, output.dtype, (rows, *output.shape[1:]), pieces, output.loss
        )
    return fused
