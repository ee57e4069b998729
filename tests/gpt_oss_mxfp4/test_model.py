"""The graph's weights and devices; its logits are tested in tests/end_to_end."""

from __future__ import annotations

import dataclasses
import re

import pytest
from max import tree
from max.dtype import DType
from max.graph import DeviceRef
from max.nn.transformer import ReturnLogits
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.checkpoint.schema import expected_tensors
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.model import ROPE_TABLE, GptOss
from gpt_oss_mxfp4.options import LayerOptions
from tests.golden import CHECKPOINT

CONFIG = GptOssConfig.from_file(CHECKPOINT / "config.json")


def build(
    config: GptOssConfig,
    device: DeviceRef,
    dtype: DType,
    *,
    packed: bool = False,
    one_kernel: bool = False,
) -> GptOss:
    kv_params = kv_cache_params(config, KVCacheConfig(), device, "bfloat16")
    experts = LayerOptions(packed=packed, one_kernel=one_kernel)
    return GptOss(config, kv_params, device, dtype, experts, ReturnLogits.LAST_TOKEN)


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


@pytest.mark.parametrize(("packed", "one_kernel"), [(False, False), (True, False), (True, True)])
def test_a_gpus_graph_is_built(packed: bool, one_kernel: bool) -> None:
    """Packed experts are on the device already; all else is sent there."""
    model = build(CONFIG, DeviceRef.GPU(), DType.bfloat16, packed=packed, one_kernel=one_kernel)
    assert model.rope_table.dtype == DType.bfloat16  # not cast at every step
    for name, weight in model.raw_state_dict().items():
        weight.name = name
    graph = model.trace(*tree.leaves(model.input_tree()))
    constants = re.findall(r'name = "([^"]+)"[^\n]+device_ref<"(\w+)"', str(graph._module))
    resident = {name for name, device in constants if device == "gpu"}
    tiles = {f"mlp.experts.{name}_proj_tiles" for name in ("gate_up", "down")}
    assert resident == (tiles if packed else set())
