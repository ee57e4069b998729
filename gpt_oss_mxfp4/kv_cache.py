"""The paged KV caches: one per layer type; on a GPU one block of threads reads a sequence's key-value head."""

from __future__ import annotations

from dataclasses import dataclass, fields

from max.graph import DeviceRef
from max.nn.kv_cache import MHAKVCacheParams, MultiKVCacheParams
from max.nn.kv_cache.utils import AttnKeyInterface, MHAAttnKey
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.config import SLIDING, GptOssConfig
from gpt_oss_mxfp4.ops.checks import cache_dtype
from gpt_oss_mxfp4.options import Activations


@dataclass
class UnsplitKVCacheParams(MHAKVCacheParams):
    """A cache that attention on a GPU does not split along a sequence.

    MAX 26.7.0 splits one of 1024 keys or more among several blocks while a batch is small, each of which counts
    the sink, and then adds up what they counted (NOTES N88).
    """

    def resolve_attn_key(
        self, batch_size: int, max_prompt_length: int, max_cache_valid_length: int
    ) -> AttnKeyInterface:
        """Says how a decode step is launched: as one part, however many keys there are."""
        del max_cache_valid_length
        return MHAAttnKey(
            batch_size=batch_size, max_prompt_length=max_prompt_length, num_partitions=1
        )


def kv_cache_params(
    config: GptOssConfig, cache: KVCacheConfig, device: DeviceRef, activations: Activations
) -> MultiKVCacheParams:
    """Plans one paged KV cache per layer type; that of sliding layers knows their window.

    Args:
        config: gives layers, heads and window.
        cache: page size and the other settings of MAX's KV cache.
        device: where the caches lie.
        activations: what inputs of matmuls are rounded to on a CPU: with "float32" keys and values are float32 there.

    Returns:
        The caches, keyed by layer type in order of first appearance.
    """
    caches = {}
    for kind in dict.fromkeys(config.layer_types):
        params = cache.to_params(
            dtype=cache_dtype(device, activations),
            n_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            num_layers=config.layer_types.count(kind),
            devices=[device],
            window_size=config.sliding_window if kind == SLIDING else None,
        )
        caches[kind] = UnsplitKVCacheParams(
            **{field.name: getattr(params, field.name) for field in fields(params) if field.init}
        )
    return MultiKVCacheParams.from_params(caches)
