"""The graph's weights and devices; its logits are tested in tests/end_to_end."""

from __future__ import annotations

import dataclasses

import pytest
from max import tree
from max.dtype import DType
from max.graph import DeviceRef
from max.nn.transformer import ReturnLogits
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.checkpoint.schema import expected_tensors
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.model import ROPE_TABLE, GptOss
from gpt_oss_mxfp4.model_config import kv_cache_params
from tests.golden import CHECKPOINT

CONFIG = GptOssConfig.from_file(CHECKPOINT / "config.json")


def build(config: GptOssConfig, device: DeviceRef, dtype: DType) -> GptOss:
    kv_params = kv_cache_params(config, KVCacheConfig(), device)
    return GptOss(config, kv_params, device, dtype, "bfloat16", ReturnLogits.LAST_TOKEN)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_the_checkpoints_tensors_by_name_and_shape(tied: bool) -> None:
    config = dataclasses.replace(CONFIG, tie_word_embeddings=tied)
    weights = build(config, DeviceRef.CPU(), DType.float32).raw_state_dict()
    assert weights.pop(ROPE_TABLE).dtype == DType.float32
    dtypes = {DType.bfloat16: "BF16", DType.uint8: "U8"}
    assert {
        name: (dtypes[weight.dtype], tuple(weight.shape.static_dims))
        for name, weight in weights.items()
    } == dict(expected_tensors(config))


def test_a_gpu_is_refused_while_the_graph_is_built() -> None:
    model = build(CONFIG, DeviceRef.GPU(), DType.bfloat16)
    model.state_dict()  # names the weights
    with pytest.raises(ValueError, match="has no GPU kernel yet"):
        model.trace(*tree.leaves(model.input_tree()))
