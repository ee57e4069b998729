"""The whole of gpt-oss, from token ids to logits, with the result of every stage.

Source: gpt-oss's model card (arXiv 2508.10925, section 2) and its published reference code
(github.com/openai/gpt-oss, gpt_oss/torch/model.py). Names of sizes and tensors are those of the
Hugging Face checkpoint, whose layout `read_checkpoint` reads.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import deserialize

from tests.reference.attention import attention, rotate, yarn_frequencies
from tests.reference.bfloat16 import decode_bfloat16
from tests.reference.dense import (
    Activations,
    dequantize_int8,
    dequantize_mxfp8,
    linear,
    quantize_int8,
    quantize_mxfp8,
)
from tests.reference.moe import ExpertWeights, experts, route

Float64 = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LayerStages:
    """What one layer computed, for naming the stage at which another implementation parts ways."""

    attention_input: Float64
    """[T, H], normed."""
    attention: Float64
    """[T, H], after the output projection, before the residual sum."""
    moe_input: Float64
    """[T, H], normed."""
    router_logits: Float64
    """[T, E]."""
    expert_ids: NDArray[np.int32]
    """[T, k]."""
    routing_weights: Float64
    """[T, k]."""
    experts: Float64
    """[T, H], before the residual sum."""
    output: Float64
    """[T, H], the residual stream after the layer."""


@dataclass(frozen=True)
class Stages:
    """What the whole model computed."""

    embedding: Float64
    """[T, H]."""
    layers: tuple[LayerStages, ...]
    final_norm: Float64
    """[T, H]."""
    logits: Float64
    """[T, vocabulary]."""


def forward(
    config: Mapping[str, Any],
    weights: Weights,
    token_ids: ArrayLike,
    activations: Activations = "float32",
    dense_activations: Activations = "float32",
) -> Float64:
    """Logits of the next token at every position.

    Args:
        config: config.json's names; rope as `rope_parameters`, or `rope_scaling` + `rope_theta`.
        weights: by Hugging Face tensor name; experts as blocks and scales; see `read_checkpoint`.
        token_ids: [T] integers, at positions 0..T-1.
        activations: what the input of both expert multiplications is rounded to.
        dense_activations: what the input of attention's projections and of the logits is rounded to, and both of
            attention's products, as `self_attention` says.

    Returns:
        [T, vocabulary] float64.
    """
    return forward_stages(config, weights, token_ids, activations, dense_activations).logits


def forward_stages(
    config: Mapping[str, Any],
    weights: Weights,
    token_ids: ArrayLike,
    activations: Activations = "float32",
    dense_activations: Activations = "float32",
) -> Stages:
    """As `forward`, keeping what every stage computed."""
    eps = config["rms_norm_eps"]
    embedding = weights["model.embed_tokens.weight"][np.asarray(token_ids)].astype(np.float64)
    x = embedding
    layers = []
    for i in range(config["num_hidden_layers"]):
        layer = forward_layer(
            config, layer_weights(weights, i), x, i, activations, dense_activations
        )
        layers.append(layer)
        x = layer.output
    final_norm = rms_norm(x, weights["model.norm.weight"], eps)
    tied = config.get("tie_word_embeddings", False)
    head = weights["model.embed_tokens.weight" if tied else "lm_head.weight"]
    logits = linear(final_norm, head, None, dense_activations)
    return Stages(embedding, tuple(layers), final_norm, logits)


def forward_layer(
    config: Mapping[str, Any],
    weights: Weights,
    x: Float64,
    layer_idx: int,
    activations: Activations = "float32",
    dense_activations: Activations = "float32",
) -> LayerStages:
    """One layer: ``x += attention(norm(x))``, then ``x += experts(norm(x))``.

    Args:
        config: as `forward` takes it.
        weights: of this layer, from `layer_weights`.
        x: [T, H], the residual stream before the layer.
        layer_idx: chooses the layer's type, sliding or full.
        activations: as `forward` takes it.
        dense_activations: as `forward` takes it.

    Returns:
        Every stage of the layer.
    """
    eps = config["rms_norm_eps"]
    sliding = config["layer_types"][layer_idx] == "sliding_attention"
    window = config["sliding_window"] if sliding else None

    attention_input = rms_norm(x, weights["input_layernorm.weight"], eps)
    attended = self_attention(config, weights, attention_input, window, dense_activations)
    x = x + attended

    moe_input = rms_norm(x, weights["post_attention_layernorm.weight"], eps)
    router_logits = linear(moe_input, weights["mlp.router.weight"], weights["mlp.router.bias"])
    expert_ids, routing_weights = route(router_logits, config["num_experts_per_tok"])
    mixed = experts(
        moe_input,
        expert_ids,
        routing_weights,
        expert_weights(weights, "gate_up_proj"),
        expert_weights(weights, "down_proj"),
        config.get("swiglu_limit", 7.0),
        activations,
    )
    return LayerStages(
        attention_input=attention_input,
        attention=attended,
        moe_input=moe_input,
        router_logits=router_logits,
        expert_ids=expert_ids,
        routing_weights=routing_weights,
        experts=mixed,
        output=x + mixed,
    )


def self_attention(
    config: Mapping[str, Any],
    weights: Weights,
    x: Float64,
    window: int | None,
    activations: Activations = "float32",
) -> Float64:
    """The attention of one layer, projections included.

    Args:
        config: as `forward` takes it.
        weights: of this layer, from `layer_weights`.
        x: [T, H], normed.
        window: positions that a query sees, or None for all.
        activations: what the input of the projections is rounded to; both of attention's products take bfloat16 where
            that is rounded at all.

    Returns:
        [T, H] float64.
    """
    head_dim = config["head_dim"]  # not hidden_size / num_attention_heads in the real models
    positions = np.arange(x.shape[0])
    frequencies, attention_factor = yarn_frequencies(rope_parameters(config), head_dim)

    def project(name: str) -> Float64:
        weight, bias = weights[f"self_attn.{name}.weight"], weights[f"self_attn.{name}.bias"]
        y = linear(x, weight, bias, activations)
        return y.reshape(x.shape[0], -1, head_dim)

    q = rotate(project("q_proj"), positions, frequencies, attention_factor)
    k = rotate(project("k_proj"), positions, frequencies, attention_factor)
    heads = attention(
        q,
        k,
        project("v_proj"),
        weights["self_attn.sinks"],
        window,
        rounded=activations != "float32",
    )
    return linear(
        heads.reshape(x.shape[0], -1),
        weights["self_attn.o_proj.weight"],
        weights["self_attn.o_proj.bias"],
        activations,
    )


def rms_norm(x: ArrayLike, weight: ArrayLike, eps: float) -> Float64:
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last axis (arXiv 1910.07467)."""
    x = np.asarray(x, np.float64)
    return np.asarray(weight) * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def round_dense_weights(weights: Weights, form: str) -> dict[str, NDArray[Any]]:
    """The weights with those of attention and of the logits rounded to "int8" or "mxfp8" and back."""
    rounded = dict(weights)
    for name, weight in weights.items():
        if name == "lm_head.weight" or ("self_attn." in name and name.endswith("_proj.weight")):
            rounded[name] = (
                dequantize_int8(*quantize_int8(weight))
                if form == "int8"
                else dequantize_mxfp8(*quantize_mxfp8(weight))
            )
    return rounded


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rope settings of either spelling, as `yarn_frequencies` takes them.

    transformers 5 writes `rope_parameters` with `rope_theta` inside; the published checkpoints have
    `rope_scaling` with `rope_theta` beside it.
    """
    if "rope_parameters" in config:
        return dict(config["rope_parameters"])
    return {**config["rope_scaling"], "rope_theta": config["rope_theta"]}


def layer_weights(weights: Weights, layer_idx: int) -> dict[str, NDArray[Any]]:
    """The tensors of one layer, by their names without ``model.layers.{i}.``."""
    prefix = f"model.layers.{layer_idx}."
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def expert_weights(weights: Weights, projection: str) -> ExpertWeights:
    """`gate_up_proj` or `down_proj` of one layer's experts, from `layer_weights`."""
    name = f"mlp.experts.{projection}"
    return ExpertWeights(
        weights[f"{name}_blocks"], weights[f"{name}_scales"], weights[f"{name}_bias"]
    )


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A small checkpoint of the Hugging Face layout, whole in memory.

    Args:
        folder: holds config.json and model*.safetensors.

    Returns:
        config, as config.json has it; weights by tensor name: BF16 as float32, U8 as uint8.
    """
    weights: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):
            stored = {"BF16": np.uint16, "U8": np.uint8}[tensor["dtype"]]
            values = np.frombuffer(tensor["data"], stored).reshape(tensor["shape"])
            weights[name] = decode_bfloat16(values) if stored is np.uint16 else values
    return json.loads((folder / "config.json").read_text()), weights
