"""The paged KV caches as MAX plans them."""

from __future__ import annotations

import pytest
from max.dtype import DType
from max.graph import DeviceRef
from max.nn.kv_cache import KVCacheParams, MHAKVCacheParams, cache_params
from max.nn.kv_cache.utils import MHAAttnKey
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.options import Activations
from tests.golden import CHECKPOINT

CONFIG = GptOssConfig.from_file(CHECKPOINT / "config.json")


def test_each_layer_type_has_a_cache_of_its_own() -> None:
    params = kv_cache_params(CONFIG, KVCacheConfig(), DeviceRef.CPU(), "bfloat16")
    sliding, full = (
        params.child(kind, KVCacheParams) for kind in ("sliding_attention", "full_attention")
    )
    assert (sliding.num_layers, full.num_layers) == (2, 2)
    assert (sliding.window_size, full.window_size) == (128, None)


@pytest.mark.parametrize(
    ("activations", "device", "dtype"),
    [
        ("bfloat16", DeviceRef.CPU(), DType.bfloat16),
        ("int8", DeviceRef.CPU(), DType.bfloat16),
        ("float32", DeviceRef.CPU(), DType.float32),
        ("float32", DeviceRef.GPU(), DType.bfloat16),
    ],
)
def test_keys_and_values_are_bfloat16_unless_nothing_is_rounded(
    activations: Activations, device: DeviceRef, dtype: DType
) -> None:
    params = kv_cache_params(CONFIG, KVCacheConfig(), device, activations)
    for kind in ("sliding_attention", "full_attention"):
        assert params.child(kind, KVCacheParams).dtype == dtype


def test_attention_on_a_gpu_is_not_split_along_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """MAX's kernel counts the sink once in each part."""
    # What MAX asks a GPU's driver here, which is not at hand.
    monkeypatch.setattr(MHAKVCacheParams, "_primary_device", property(lambda self: object()))
    monkeypatch.setattr(cache_params, "mha_decode_num_partitions", lambda *arguments: 8)
    gpu = DeviceRef.GPU()
    params = kv_cache_params(CONFIG, KVCacheConfig(), gpu, "bfloat16")
    for kind in ("sliding_attention", "full_attention"):
        child = params.child(kind, KVCacheParams)
        assert child.resolve_attn_key(4, 1, 4096) == MHAAttnKey(4, 1, num_partitions=1)
