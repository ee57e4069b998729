"""Grouped-query attention with sinks and a sliding window, over MAX's paged KV cache."""

from __future__ import annotations

import math

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight
from max.graph.ops import concat
from max.nn.attention import MHAMaskVariant
from max.nn.kernels import flash_attention_ragged, rope_split_store_ragged
from max.nn.kv_cache import KVCacheParams, PagedCacheValues
from max.nn.layer import Module

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.config import SLIDING, GptOssConfig
from gpt_oss_mxfp4.layers.dense import Dense
from gpt_oss_mxfp4.options import LayerOptions


class Attention(Module):
    """One layer's self-attention; the sink is a logit per query head that joins the softmax and then drops out.

    Args:
        config: the model's sizes.
        layer_type: SLIDING (the last ``sliding_window`` positions) or FULL.
        kv_params: the KV cache of all layers of this type.
        device: where the weights lie.
        options: how layers multiply.
    """

    def __init__(
        self,
        config: GptOssConfig,
        layer_type: str,
        kv_params: KVCacheParams,
        device: DeviceRef,
        options: LayerOptions,
    ) -> None:
        super().__init__()
        self.kv_params = kv_params
        self.options = options
        self.heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.window = config.sliding_window if layer_type == SLIDING else None
        queries, keys = self.heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = Dense(config.hidden_size, queries, device, options, bias=True)
        self.k_proj = Dense(config.hidden_size, keys, device, options, bias=True)
        self.v_proj = Dense(config.hidden_size, keys, device, options, bias=True)
        self.o_proj = Dense(queries, config.hidden_size, device, options, bias=True)
        self.sinks = Weight("sinks", DType.bfloat16, [self.heads], device)

    def __call__(
        self,
        x: TensorValue,
        cache: PagedCacheValues,
        cache_layer: TensorValue,
        rope_table: TensorValue,
        row_offsets: TensorValue,
    ) -> TensorValue:
        """Attends within each sequence of a ragged batch and appends its keys and values to the cache.

        Args:
            x: [T, hidden], the batch's sequences one after another.
            cache: the paged cache of this layer's type; written in place.
            cache_layer: scalar uint32 on the CPU, this layer's place in that cache.
            rope_table: [positions, head_dim] of x's dtype, from ``rope_table``.
            row_offsets: [B + 1] uint32, where each sequence begins in x.

        Returns:
            [T, hidden] of x's dtype.
        """
        queries = rope_split_store_ragged(
            self.kv_params,
            # A GPU waits at each launch; on a CPU weights stay where the file has them.
            self._project(x, joined=not x.device.is_cpu()),
            row_offsets,
            rope_table,
            cache,
            cache_layer,
            self.heads,
            interleaved=False,  # a pair is (i, i + head_dim / 2)
        )
        queries = queries.reshape((-1, self.heads, self.head_dim))
        if x.device.is_cpu():
            attended = ops.attention(
                queries, cache, cache_layer, row_offsets, self.sinks.cast(x.dtype), self.window
            )
        elif self.options.attention == "sm90":
            attended = ops.attention_sm90(
                queries, cache, cache_layer, row_offsets, self.sinks, self.window
            )
        else:
            attended = flash_attention_ragged(
                self.kv_params,
                input=queries,
                input_row_offsets=row_offsets,
                kv_collection=cache,
                layer_idx=cache_layer,
                mask_variant=MHAMaskVariant.SLIDING_WINDOW_CAUSAL_MASK
                if self.window
                else MHAMaskVariant.CAUSAL_MASK,
                scale=1 / math.sqrt(self.head_dim),
                local_window_size=self.window or -1,
                sink_weights=self.sinks.cast(x.dtype),
            )
        return self.o_proj(attended.reshape((x.shape[0], -1)))

    def _project(self, x: TensorValue, *, joined: bool) -> TensorValue:
        """Gives queries, keys and values of x [T, hidden] side by side, by one matmul or by three."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        if not joined:
            return concat([layer(x) for layer in layers], axis=-1)
        # MAX joins the weights once, while it loads them.
        weight = concat([layer.weight for layer in layers])
        bias = concat([layer.bias for layer in layers])
        options = self.options
        return ops.dense(x, weight, bias, options.activations, kernel=options.dense)
