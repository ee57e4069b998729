"""Queries, keys and values by one matmul, as a GPU has them, are those of three; attention is tested as an op."""

from __future__ import annotations

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType
from max.graph.weights import WeightData
from max.nn.kv_cache import KVCacheParams
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.layers.attention import Attention
from gpt_oss_mxfp4.ops import custom_ops
from gpt_oss_mxfp4.options import LayerOptions
from tests.golden import CHECKPOINT
from tests.reference.bfloat16 import encode_bfloat16


def test_joined_projections_are_the_separate_ones(rng: np.random.Generator) -> None:
    config, device = GptOssConfig.from_file(CHECKPOINT / "config.json"), DeviceRef.CPU()
    kind = config.layer_types[0]
    caches = kv_cache_params(config, KVCacheConfig(), device, "float32")
    layer = Attention(
        config, kind, caches.child(kind, KVCacheParams), device, LayerOptions(activations="float32")
    )
    weights = {}
    for name, weight in layer.raw_state_dict().items():
        bits = encode_bfloat16(rng.standard_normal(weight.shape.static_dims)).astype(np.uint16)
        buffer = Buffer.from_numpy(bits).view(DType.bfloat16)
        weights[name] = WeightData(buffer, name, DType.bfloat16, weight.shape)
    layer.load_state_dict(weights)
    x = TensorType(DType.float32, ["tokens", config.hidden_size], device)
    with Graph("projections", input_types=[x], custom_extensions=[custom_ops()]) as graph:
        (given,) = graph.inputs
        graph.output(*(layer._project(given.tensor, joined=joined) for joined in (False, True)))
    session = InferenceSession(devices=[CPU()])
    model = session.load(graph, weights_registry=layer.state_dict())
    rows = rng.standard_normal((5, config.hidden_size), dtype=np.float32)
    separate, joined = (out.to_numpy() for out in model.execute(Buffer.from_numpy(rows)))
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    assert separate.shape == (5, heads * config.head_dim)
    assert np.ptp(separate, axis=0).all()
    np.testing.assert_allclose(joined, separate, rtol=1e-5, atol=1e-4)
