"""Every stage of every layer against the reference, so that a wrong logit has an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from max.dtype import DType
from max.graph import DeviceRef, TensorValue, ops
from max.nn.kv_cache import PagedCacheValues

from gpt_oss_mxfp4.model import GptOss
from gpt_oss_mxfp4.ops import route
from gpt_oss_mxfp4.options import LayerOptions
from tests import tolerances
from tests.golden import CHECKPOINT, load_prompts
from tests.harness import Harness
from tests.measure import RelativeError, relative_error
from tests.reference.model import Stages, forward_stages, read_checkpoint

STAGES = (
    "attention_input",
    "attention",
    "moe_input",
    "router_logits",
    "expert_ids",
    "routing_weights",
    "experts",
    "output",
)
"""Fields of the reference's LayerStages, in the order in which a layer computes them."""

PROMPT = next(p for p in load_prompts() if p.name == "window")
LAYERS = len(read_checkpoint(CHECKPOINT)[0]["layer_types"])


class StagedGptOss(GptOss):
    """The model's own modules, called one by one; returns what each computed instead of logits."""

    def __call__(
        self,
        tokens: TensorValue,
        row_offsets: TensorValue,
        return_n_logits: TensorValue,
        caches: dict[str, PagedCacheValues],
    ) -> tuple[TensorValue, ...]:
        model, rope_table = self.model, self.rope_table
        h = model.embed_tokens(tokens).cast(self.dtype)
        stages = [h]
        for index, (layer, kind) in enumerate(zip(model.layers, model.kinds, strict=True)):
            place = ops.constant(
                model.kinds[:index].count(kind), DType.uint32, device=DeviceRef.CPU()
            )
            attention_input = layer.input_layernorm(h)
            attention = layer.self_attn(
                attention_input, caches[kind], place, rope_table, row_offsets
            )
            h = h + attention
            moe_input = layer.post_attention_layernorm(h)
            experts = layer.mlp(moe_input, residual=h - h)
            h = layer.mlp(moe_input, residual=h)
            logits = layer.mlp.router(moe_input)
            stages += [attention_input, attention, moe_input, logits]
            stages += [*route(logits, layer.mlp.top_k), experts, h]
        return tuple(stages)


@dataclass(frozen=True)
class Computed:
    """What our modules and the reference computed of one prompt."""

    ours: list[npt.NDArray[Any]]
    reference: Stages


@pytest.fixture(scope="module")
def computed() -> Computed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt_oss_mxfp4.pipeline.GptOss", StagedGptOss)
        harness = Harness(CHECKPOINT, layers=LayerOptions(activations="float32"))
    prompt = PROMPT.token_ids.tolist()
    reference = forward_stages(*read_checkpoint(CHECKPOINT), prompt)
    return Computed(harness.outputs(prompt), reference)


def assert_close(got: npt.ArrayLike, want: npt.ArrayLike, bound: RelativeError) -> None:
    error = relative_error(got, want)
    # Not `error > bound`: that is false for NaN.
    assert error.maximum <= bound.maximum, error
    assert error.rms <= bound.rms, error


def test_embedding_is_exact(computed: Computed) -> None:
    np.testing.assert_array_equal(computed.ours[0], computed.reference.embedding)


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("stage", STAGES)
def test_stage(computed: Computed, layer: int, stage: str) -> None:
    got = computed.ours[1 + layer * len(STAGES) + STAGES.index(stage)]
    want = getattr(computed.reference.layers[layer], stage)
    print(f"layer {layer}, {stage}: {relative_error(got, want)}")
    if stage == "expert_ids":
        np.testing.assert_array_equal(got, want)
    else:
        assert_close(got, want, tolerances.STAGE)
