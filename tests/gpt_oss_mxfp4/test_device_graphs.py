"""``--device-graphs``: MAX's other pipeline, which gives a step's tokens with the next, and captures on a GPU."""

from __future__ import annotations

import functools
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from max.pipelines.lib import registry
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from max.pipelines.lib.pipeline_variants import overlap_text_generation

from gpt_oss_mxfp4 import cli, engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import EngineOptions, Refused, SamplingOptions
from gpt_oss_mxfp4.prompt import encode_prompt
from tests.golden import CHECKPOINT

REFUSALS = (
    ("if self._devices[0].is_host:", "if False:"),
    ("if device.is_host:", "if False:"),
    ("assert not device0.is_host", "pass"),
)
"""What of MAX's module refuses a CPU, each in one place, and what takes its place."""

OPTIONS = EngineOptions(activations="float32")


@pytest.fixture(scope="module")
def overlapping() -> ModuleType:
    """MAX's module of that pipeline, which runs on a CPU: all but capturing is the same there."""
    assert overlap_text_generation.__file__ is not None
    source = Path(overlap_text_generation.__file__).read_text()
    for refusal, instead in REFUSALS:
        assert source.count(refusal) == 1
        source = source.replace(refusal, instead)
    spec = importlib.util.spec_from_loader(f"{overlap_text_generation.__name__}_on_a_cpu", None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__package__ = overlap_text_generation.__package__
    sys.modules[spec.name] = module  # its dataclasses look for it
    exec(compile(source, overlap_text_generation.__file__, "exec"), vars(module))
    return module


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch, overlapping: ModuleType) -> list[Any]:
    """Pipelines whose steps were captured, as it were."""
    made = overlapping.OverlapTextGenerationPipeline
    captured: list[Any] = []
    monkeypatch.setattr(made, "warmup_graph_capture", lambda self: captured.append(self))
    monkeypatch.setattr(registry, made.__name__, made)
    monkeypatch.setattr(engine, made.__name__, made)
    forced = functools.partial(PipelineRuntimeConfig, force=True)  # MAX's config refuses too
    monkeypatch.setattr(engine, "PipelineRuntimeConfig", forced)
    return captured


@pytest.mark.slow
def test_tokens_are_those_of_the_pipeline_without(captures: list[Any]) -> None:
    checkpoint = open_checkpoint(CHECKPOINT)
    prompt = encode_prompt(checkpoint, "The keeper of the lighthouse")
    prompts = [prompt.ids, prompt.ids[3:], prompt.ids[:2]]
    runs = []
    for device_graphs in (False, True):
        options = replace(OPTIONS, device_graphs=device_graphs)
        pipeline = engine.load(checkpoint, len(prompt.ids), 8, options, 3)
        assert captures == ([pipeline] if device_graphs else [])
        left = engine.stream(pipeline, prompt, SamplingOptions(max_new_tokens=8))
        next(token for step in left for token in step)
        left.close()
        sampled = list(engine.stream(pipeline, prompt, SamplingOptions(max_new_tokens=8)))
        runs.append(
            (
                [token for step in sampled for token in step],
                list(engine.stream_batch(pipeline, prompts, 8)),
            )
        )
    assert runs[0] == runs[1]
    assert [len(step) for step in runs[1][1]] == 8 * [3]


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_gpu_that_cannot_capture_is_told(
    monkeypatch: pytest.MonkeyPatch, overlapping: ModuleType, error: type[Exception]
) -> None:
    class Pipeline(overlapping.OverlapTextGenerationPipeline):  # type: ignore[name-defined]
        def __init__(self) -> None:
            pass

        def warmup_graph_capture(self) -> None:
            raise error("no graph-capture\ndevices")

    monkeypatch.setattr(engine, "OverlapTextGenerationPipeline", Pipeline)
    monkeypatch.setattr(engine, "_make_pipeline", lambda *_, **__: Pipeline())
    with pytest.raises(Refused) as raised:
        engine.load(open_checkpoint(CHECKPOINT), 1, 1, OPTIONS)
    assert str(raised.value) == (
        "--device-graphs: MAX cannot capture a step here (no graph-capture devices); run without"
    )


@pytest.mark.parametrize("verb", [["generate", "--prompt", "x"], ["bench"], ["chat"], ["serve"]])
def test_a_cpu_has_none(capfd: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert cli.main([*verb, "--device-graphs"]) == 2
    message = "gpt-oss-mxfp4: --device-graphs: must come with --devices gpu\n"
    assert capfd.readouterr() == ("", message)
