"""What is told of device graphs, with a pipeline that is none: right ones, wrong logits, and tokens that are none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import Buffer
from max.pipelines.lib.graph_capture import ServeGraphCaptureRunner

from gpt_oss_mxfp4 import engine
from scripts import check_device_graphs as script

STEPS, SEQUENCES = 3, 2


class Pipeline:
    """Gives logits of its own without graphs, and what ``replayed`` makes of them with them."""

    def __init__(self, replayed: float, first_token: int) -> None:
        self._pipeline_model = SimpleNamespace(execute=self.execute)
        self._graph_capture_runner = SimpleNamespace(replay=self.replay)
        self._replayed, self.first_token = replayed, first_token

    def execute(self, model_inputs: Any) -> Any:
        tokens = model_inputs.tokens.to_numpy()
        logits = np.stack([np.arange(8.0) * (1 + token) for token in tokens])
        return SimpleNamespace(logits=Buffer.from_numpy(logits.astype(np.float32)))

    def replay(self, *, model_inputs: Any, batch_characteristics: str) -> Any:
        assert batch_characteristics == "aligned"
        logits = self.execute(model_inputs).logits.to_numpy().copy()
        logits[0, 0] += self._replayed
        return SimpleNamespace(logits=Buffer.from_numpy(logits))


def stream(pipeline: Pipeline, prompts: Sequence[Sequence[int]], steps: int) -> Iterator[list[int]]:
    tokens = np.array([pipeline.first_token] + [1] * (len(prompts) - 1))
    for _ in range(steps):
        inputs = SimpleNamespace(tokens=Buffer.from_numpy(tokens))
        replay = pipeline._graph_capture_runner.replay
        outputs = replay(model_inputs=inputs, batch_characteristics="aligned")
        tokens = outputs.logits.to_numpy().argmax(axis=1)
        yield tokens.tolist()


@pytest.mark.parametrize(
    ("replayed", "first_token", "told"),
    [
        (0.0, 2, []),
        (np.nan, 2, ["NaN: 0 without the graph, 1 with it"]),
        (1000.0, 2, ["of the range", "replayed: other tokens than without graphs"]),
        (0.0, -999, ["tokens [-999, 1], 1 of them none"]),
    ],
    ids=["right", "NaN", "other logits", "no token"],
)
def test_what_differs_is_told(
    replayed: float,
    first_token: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engine, "load", lambda *_: Pipeline(replayed, first_token))
    monkeypatch.setattr(engine, "stream_batch", stream)
    words = ["--sequences", str(SEQUENCES), "--steps", str(STEPS)]
    assert script.main(words) == bool(told)
    out = capsys.readouterr().out
    loaded, _, ran = out.partition("loaded\n")
    assert loaded == "loading, and capturing graphs\n"
    assert ran.startswith("without graphs: [[7, 7], [7, 7], [7, 7]]\n" if first_token >= 0 else "")
    assert out.count("of them none; NaN: ") >= STEPS
    wrong = [line for line in out.splitlines() if line.startswith("WRONG: ")]
    assert bool(wrong) == bool(told)
    for text in told:
        assert any(text in line for line in wrong)


def test_one_graph_may_be_captured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the method that MAX asks of each number of sequences."""
    runner: Any = ServeGraphCaptureRunner
    monkeypatch.setattr(runner, "_probe_verify_widths", lambda self, batch_size: [batch_size])
    script.capture_alone(4)
    captured = [runner._probe_verify_widths(SimpleNamespace(), n) for n in range(1, 6)]
    assert captured == [[], [], [], [4], []]
    source = inspect.getsource(runner.warmup_pre_ready)
    assert "for width in self._probe_verify_widths(batch_size)" in source
