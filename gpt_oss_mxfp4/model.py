"""The whole model as a MAX graph: token ids to logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from max.dtype import DType
from max.graph import (
    DeviceRef,
    Graph,
    TensorValue,
    Type,
    Value,
    Weight,
    default_custom_extensions_scope,
    ops,
)
from max.graph import Module as GraphModule
from max.nn.embedding import Embedding
from max.nn.kv_cache import KVCacheParams, MultiKVCacheParams, PagedCacheValues
from max.nn.layer import LayerList, Module
from max.nn.norm import RMSNorm
from max.nn.transformer import ReturnLogits
from max.nn.transformer.transformer import forward_sequential_layers, logits_postprocess
from max.pipelines.lib.interfaces.batch_processor import ragged_kv_symbolic_input_tree

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.layers.block import Block
from gpt_oss_mxfp4.layers.dense import Dense
from gpt_oss_mxfp4.ops import custom_ops, dense
from gpt_oss_mxfp4.options import LayerOptions

ROPE_TABLE = "rope_table"
"""Name of the one weight that no checkpoint holds: ``layers.rope.rope_table`` computes its value."""


class Decoder(Module):
    """The checkpoint's ``model.*`` tensors: embedding, layers, last norm.

    Args:
        config: the model's sizes.
        kv_params: one KV cache per layer type, keyed by the type.
        device: where weights lie and the graph runs.
        dtype: of the activations.
        options: how layers multiply.
    """

    def __init__(
        self,
        config: GptOssConfig,
        kv_params: MultiKVCacheParams,
        device: DeviceRef,
        dtype: DType,
        options: LayerOptions,
    ) -> None:
        super().__init__()
        self.kinds = config.layer_types
        self.dtype = dtype
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, DType.bfloat16, device)
        self.layers = LayerList(
            [
                Block(config, kind, kv_params.child(kind, KVCacheParams), device, options)
                for kind in self.kinds
            ]
        )
        self.norm = RMSNorm(config.hidden_size, DType.bfloat16, config.rms_norm_eps)

    def __call__(
        self,
        tokens: TensorValue,
        caches: dict[str, PagedCacheValues],
        rope_table: TensorValue,
        row_offsets: TensorValue,
    ) -> TensorValue:
        """Gives the last layer's output [T, hidden] before the norm; arguments as :meth:`GptOss.__call__`."""
        distinct = list(dict.fromkeys(self.kinds))
        cache_layers = [self.kinds[:layer].count(kind) for layer, kind in enumerate(self.kinds)]

        def layer_inputs(layer: int, h: list[TensorValue]) -> list[Any]:
            cache_layer = ops.constant(cache_layers[layer], DType.uint32, device=DeviceRef.CPU())
            return [h[0], caches[self.kinds[layer]], cache_layer, rope_table, row_offsets]

        # Layers of one type are calls of one subgraph: two layers to compile, however many there are.
        [h] = forward_sequential_layers(
            list(self.layers),
            inputs_for_layer=layer_inputs,
            initial_hidden_states=[self.embed_tokens(tokens).cast(self.dtype)],
            subgraph_layer_groups=[
                [layer for layer, kind in enumerate(self.kinds) if kind == group]
                for group in distinct
            ],
            name_for_subgraph=lambda group: distinct[group],
            weight_prefix_for_layer=lambda layer: f"model.layers.{layer}.",
        )
        return h


class GptOss(Module):
    """gpt-oss for one device: float32 activations on a CPU, bfloat16 on a GPU.

    Args:
        config: the model's sizes.
        kv_params: one KV cache per layer type, keyed by the type.
        device: where weights lie and the graph runs.
        dtype: of the activations.
        options: how layers multiply.
        return_logits: of each sequence's last token or of all tokens.
    """

    def __init__(
        self,
        config: GptOssConfig,
        kv_params: MultiKVCacheParams,
        device: DeviceRef,
        dtype: DType,
        options: LayerOptions,
        return_logits: ReturnLogits,
    ) -> None:
        super().__init__()
        self.config = config
        self.options = options
        self.kv_params = kv_params
        self.device = device
        self.dtype = dtype
        self.return_logits = return_logits
        self.model = Decoder(config, kv_params, device, dtype, options)
        self.rope_table = Weight(
            ROPE_TABLE, dtype, [config.max_position_embeddings, config.head_dim], device
        )
        if not config.tie_word_embeddings:
            self.lm_head = Dense(config.hidden_size, config.vocab_size, device, options, bias=False)

    def input_tree(self) -> OrderedDict[str, object]:
        """Names the graph's inputs: tokens, row offsets, number of logits, then the KV caches' leaves."""
        return ragged_kv_symbolic_input_tree(
            kv_params=self.kv_params, device_refs=[self.device], include_signal_buffers=False
        )

    def trace(
        self,
        *input_types: Type[Any],
        name: str | None = None,
        module: GraphModule | None = None,
        custom_extensions: Iterable[Path] = (),
        is_device_graph: bool = False,
    ) -> Graph:
        """Builds the graph, turning its flat inputs into :meth:`__call__`'s.

        Its arguments are those of ``Module.trace``; the ops are added to the extensions.
        """

        def forward(*inputs: Value[Any]) -> tuple[TensorValue, ...]:
            tokens, row_offsets, return_n_logits, *cache_leaves = inputs
            caches = self.kv_params.unflatten_basic_kv_tree(iter(cache_leaves))
            # Subgraphs do not inherit their graph's extensions. Given as built libraries, they are not built again.
            with default_custom_extensions_scope(*Graph.current.kernel_libraries_paths):
                return self(
                    tokens.tensor,
                    row_offsets.tensor,
                    return_n_logits.tensor,
                    {
                        kind: cache
                        for kind, [cache] in zip(self.kv_params.children, caches, strict=True)
                    },
                )

        return Graph(
            name or type(self).__name__,
            forward,
            input_types=input_types,
            custom_extensions=[custom_ops(), *custom_extensions],
            module=module,
            is_device_graph=is_device_graph,
        )

    def __call__(
        self,
        tokens: TensorValue,
        row_offsets: TensorValue,
        return_n_logits: TensorValue,
        caches: dict[str, PagedCacheValues],
    ) -> tuple[TensorValue, ...]:
        """Runs a ragged batch.

        Args:
            tokens: [T] int64, the batch's sequences one after another.
            row_offsets: [B + 1] uint32, where each begins.
            return_n_logits: [1] int64 on the CPU, read with ``ReturnLogits.VARIABLE`` only.
            caches: the paged cache of each layer type; written in place.

        Returns:
            Logits of each sequence's last token [B, vocabulary] float32 and, unless only those are asked for,
            logits [N, vocabulary] with their row offsets.
        """
        h = self.model(tokens, caches, self.rope_table, row_offsets)
        return logits_postprocess(
            h,
            row_offsets,
            return_n_logits,
            norm=self.model.norm,
            lm_head=self._unembed,
            return_logits=self.return_logits,
        )

    def _unembed(self, h: TensorValue) -> TensorValue:
        if self.config.tie_word_embeddings:
            return dense(
                h, self.model.embed_tokens.weight, None, self.options.activations, DType.float32
            )
        return self.lm_head(h, DType.float32)
