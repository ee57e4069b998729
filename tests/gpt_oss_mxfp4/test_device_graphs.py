"""``--device-graphs``: MAX's other pipeline, which gives a step's tokens with the next, and replays captured ones."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from max import tree
from max.driver import CPU, Buffer
from max.engine import Model
from max.pipelines.lib import graph_capture, registry
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from max.pipelines.lib.pipeline_variants import overlap_text_generation

from gpt_oss_mxfp4 import cli, engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.footprint import PREFILL_TOKENS
from gpt_oss_mxfp4.options import EngineOptions, Refused, SamplingOptions
from gpt_oss_mxfp4.prompt import encode_prompt
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.launches import model_for_hopper

REFUSALS = (
    ("if self._devices[0].is_host:", "if False:"),
    ("if device.is_host:", "if False:"),
    ("assert not device0.is_host", "pass"),
)
"""What of MAX's pipeline refuses a CPU, each in one place, and what takes its place."""

OF_A_GPU = (
    ("if dst_value.device.is_host or dst_value.pinned:", "if index in HOST_INPUTS:"),
    ("_release_buffers_to_borrowed(buffers)", "buffers"),
)
"""What of MAX's capturing tells inputs on a GPU from others, or takes memory for a GPU's."""

OPTIONS = EngineOptions(activations="float32")


def host_inputs() -> set[int]:
    """Gives places of what the graph for a GPU reads on the host: what a step is launched with, and a replay keeps."""
    leaves: list[Any] = tree.leaves(model_for_hopper(CHECKPOINT).input_tree())
    return {place for place, leaf in enumerate(leaves) if leaf.device.is_cpu()}


def changed(module: ModuleType, changes: Sequence[tuple[str, str]], **names: Any) -> ModuleType:
    """Makes a module again, from a text that has something else in a few places."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    for old, new in changes:
        assert source.count(old) == 1
        source = source.replace(old, new)
    spec = importlib.util.spec_from_loader(f"{module.__name__}_on_a_cpu", None)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    made.__package__ = module.__package__
    sys.modules[spec.name] = made  # its dataclasses look for it
    vars(made).update(names)
    exec(compile(source, module.__file__, "exec"), vars(made))
    return made


class Captured:
    """A compiled model, of which a graph's replay is a run on the buffers that were there when it was captured.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self.input_metadata = model.input_metadata
        self.replays = 0
        self._model = model
        self._outputs: dict[int, list[Buffer]] = {}

    def capture(self, key: int, *inputs: Buffer) -> list[Buffer]:
        """As MAX's model."""
        CPU().synchronize()
        self._outputs[key] = list(self._model.execute(*inputs))
        return self._outputs[key]

    def replay(self, key: int, *inputs: Buffer) -> None:
        """As MAX's model."""
        CPU().synchronize()
        self.replays += 1
        made = self._model.execute(*inputs)
        for old, new in zip(self._outputs[key], made, strict=True):
            old.inplace_copy_from(new)
        CPU().synchronize()  # a CPU copies later, and MAX does not keep what is copied (NOTES F84)

    def _await_device_graphs(self) -> None:
        pass


@pytest.fixture(scope="module")
def overlapping() -> ModuleType:
    """MAX's module of that pipeline, which runs on a CPU, with :class:`Captured` in a device graph's place."""
    capturing = changed(graph_capture, OF_A_GPU, HOST_INPUTS=host_inputs())

    class Runner(capturing.ServeGraphCaptureRunner):  # type: ignore[name-defined]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self._engine_model: Any = Captured(arguments["model"])

    module = changed(overlap_text_generation, REFUSALS)
    vars(module)["ServeGraphCaptureRunner"] = Runner
    return module


@pytest.fixture
def device_graphs(monkeypatch: pytest.MonkeyPatch, overlapping: ModuleType) -> None:
    """Has MAX make that pipeline, on a CPU, which its config refuses too."""
    made = overlapping.OverlapTextGenerationPipeline
    monkeypatch.setattr(registry, made.__name__, made)
    monkeypatch.setattr(engine, made.__name__, made)
    forced = functools.partial(PipelineRuntimeConfig, force=True)
    monkeypatch.setattr(engine, "PipelineRuntimeConfig", forced)


@pytest.mark.slow
@pytest.mark.usefixtures("device_graphs")
def test_tokens_are_those_of_the_pipeline_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the window and a page, sampled and not, after an answer that was left, in batches, of what is cached.

    And of a prompt in pieces.
    """
    monkeypatch.setitem(PREFILL_TOKENS, "cpu", 70)
    checkpoint = open_checkpoint(CHECKPOINT)
    prompt = encode_prompt(checkpoint, "The keeper of the lighthouse")
    prompts = [prompt.ids, prompt.ids[3:], prompt.ids[:2]]
    long = (60 * prompt.ids)[:300]
    runs = []
    for device_graphs in (False, True):
        options = replace(OPTIONS, device_graphs=device_graphs)
        pipeline: Any = engine.load(checkpoint, len(long), 140, options, 3, reuse=True)
        left = engine.stream(pipeline, prompt, SamplingOptions(max_new_tokens=8))
        next(token for step in left for token in step)
        left.close()
        sampled = engine.stream(pipeline, prompt, SamplingOptions(max_new_tokens=100))
        runs.append(
            (
                [token for step in sampled for token in step],
                list(engine.stream_batch(pipeline, [long], 140)),
                list(engine.stream_batch(pipeline, prompts, 140)),
                list(engine.stream_batch(pipeline, [long], 20)),
            )
        )
    assert pipeline.has_pending_outputs()
    begun = engine.stream_batch(pipeline, [long], 20)
    assert not pipeline.has_pending_outputs(), "the prompt would wait for the step before"
    assert list(begun) == runs[0][3]
    assert runs[0] == runs[1]
    assert [len(step) for step in runs[1][2]] == 140 * [3]
    runner = pipeline._graph_capture_runner
    assert len(runner.graph_entries) == 3, (
        "a graph for each number of sequences, whatever their length"
    )
    assert runner._engine_model.replays > 300


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
