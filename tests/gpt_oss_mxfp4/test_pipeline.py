"""What a step does before it runs the graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpt_oss_mxfp4 import pipeline
from gpt_oss_mxfp4.pipeline import GptOssPipelineModel


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
