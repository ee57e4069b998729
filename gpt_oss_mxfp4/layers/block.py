"""One decoder layer: attention and experts, each after a norm and added to its input."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorValue
from max.nn.kv_cache import KVCacheParams, PagedCacheValues
from max.nn.layer import Module
from max.nn.norm import RMSNorm

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.layers.attention import Attention
from gpt_oss_mxfp4.layers.moe import MoE
from gpt_oss_mxfp4.options import LayerOptions


class Block(Module):
    """``h = x + attention(norm(x))``, then ``h + experts(norm(h))``.

    Args:
        config: the model's sizes.
        layer_type: "sliding_attention" or "full_attention".
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
        self.input_layernorm = RMSNorm(config.hidden_size, DType.bfloat16, config.rms_norm_eps)
        self.self_attn = Attention(config, layer_type, kv_params, device, options)
        self.post_attention_layernorm = RMSNorm(
            config.hidden_size, DType.bfloat16, config.rms_norm_eps
        )
        self.mlp = MoE(config, device, options)

    def __call__(
        self,
        x: TensorValue,
        cache: PagedCacheValues,
        cache_layer: TensorValue,
        rope_table: TensorValue,
        row_offsets: TensorValue,
    ) -> TensorValue:
        """Gives [T, hidden] of x's dtype; arguments as :meth:`Attention.__call__`."""
        h = x + self.self_attn(self.input_layernorm(x), cache, cache_layer, rope_table, row_offsets)
        return self.mlp(self.post_attention_layernorm(h), residual=h)
