"""What a step does before it runs the graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from max.graph import DeviceRef
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4 import pipeline
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.model_config import kv_cache_params
from gpt_oss_mxfp4.pipeline import GptOssPipelineModel
from tests.golden import CHECKPOINT


@pytest.mark.parametrize(("is_host", "done"), [(True, ["settled", "run"]), (False, ["run"])])
def test_a_step_on_a_cpu_waits_for_its_inputs(
    monkeypatch: pytest.MonkeyPatch, is_host: bool, done: list[str]
) -> None:
    """MAX does not (NOTES F24), which shows in one step of ten thousand: only the order can be tested."""
    told: list[str] = []
    device = SimpleNamespace(is_host=is_host, synchronize=lambda: told.append("settled"))
    model: Any = SimpleNamespace(
        devices=[device],
        model=SimpleNamespace(execute=lambda *buffers: told.append("run")),
        return_logits=None,
        return_hidden_states=None,
    )
    monkeypatch.setattr(pipeline, "process_ragged_kv_outputs", lambda outputs, **options: outputs)
    GptOssPipelineModel.execute(model, SimpleNamespace(buffers=()))
    assert told == done


def test_kept_prefixes_are_no_part_of_what_a_graph_is_made_from() -> None:
    """Otherwise ``serve``, which keeps them, would compile what ``generate``, which does not, has compiled already."""
    config = GptOssConfig.from_file(CHECKPOINT / CONFIG_FILE)
    device = DeviceRef.CPU()
    seen = [
        pipeline._as_graphs_see(
            kv_cache_params(config, KVCacheConfig(enable_prefix_caching=kept), device)
        )
        for kept in (False, True)
    ]
    assert repr(seen[0]) == repr(seen[1])
    assert repr(seen[0]) == repr(
        kv_cache_params(config, KVCacheConfig(enable_prefix_caching=False), device)
    )
