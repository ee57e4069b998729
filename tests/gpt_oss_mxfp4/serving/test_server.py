"""What the server asks of the model before it says that it is ready."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from max.serve.process_control import SubprocessExit

from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.footprint import PREFILL_TOKENS
from gpt_oss_mxfp4.options import Failed, Refused
from gpt_oss_mxfp4.serving import server
from gpt_oss_mxfp4.serving.options import ServeOptions
from gpt_oss_mxfp4.serving.server import _ended_process, _model, _Serving
from tests.golden import CHECKPOINT


class App:
    """Answers every request with one status, and keeps its body."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.body: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.body = json.loads((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})


def answer_once(app: App, *, device_graphs: bool = False) -> None:
    options = ServeOptions(model=None, name="m", device_graphs=device_graphs)
    serving: Any = SimpleNamespace(app=app, options=options)
    asyncio.run(_Serving._answer_once(serving))


def test_the_first_answer_has_log_probabilities() -> None:
    """Their graph is compiled when they are first asked for, while all requests wait."""
    app = App(200)
    answer_once(app)
    assert app.body == {"model": "m", "prompt": [0], "max_tokens": 1, "logprobs": 1}


def test_beside_device_graphs_max_has_no_log_probabilities() -> None:
    app = App(200)
    answer_once(app, device_graphs=True)
    assert app.body == {"model": "m", "prompt": [0], "max_tokens": 1}


def asked_of_max(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """What MAX is told of how to run a model."""
    asked: list[Any] = []
    monkeypatch.setattr(server, "PipelineRuntimeConfig", lambda **fields: asked.append(fields))
    monkeypatch.setattr(engine, "prepare", lambda *_: None)
    monkeypatch.setattr(engine, "pipeline_arguments", lambda *_: None)

    def refuse(arguments: None) -> None:
        raise ValueError("asked")

    monkeypatch.setattr(server, "PipelineConfig", SimpleNamespace(from_args=refuse))
    with pytest.raises(Refused, match="asked"):
        _model(open_checkpoint(CHECKPOINT), ServeOptions(**options))
    [fields] = asked
    return dict(fields)


def test_device_graphs_are_max_s_to_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_of_max(monkeypatch, device_graphs=True)["device_graph_capture"] is True


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_prompts_are_cut_and_on_a_cpu_answers_go_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch, device: Literal["cpu", "gpu"]
) -> None:
    asked = asked_of_max(monkeypatch, devices=device)
    assert asked["max_batch_input_tokens"] == PREFILL_TOKENS[device]
    assert asked["enable_in_flight_batching"] is (device == "cpu")


def test_a_model_that_does_not_answer_fails() -> None:
    with pytest.raises(Failed, match="does not answer"):
        answer_once(App(500))


def test_faults_that_a_checkpoint_has_got_meanwhile_are_told_as_a_list(tmp_path: Path) -> None:
    for file in CHECKPOINT.iterdir():
        shutil.copy(file, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    for shard in checkpoint.files:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        _model(checkpoint, ServeOptions(model=str(tmp_path)))


def test_the_end_of_a_process_is_found_in_what_it_led_to() -> None:
    """Else the server ends in a traceback, not in a line."""
    ended = SubprocessExit("Killed")
    caused = RuntimeError("caused")
    caused.__cause__ = ended
    other = ValueError("other")
    for error in (
        ended,
        caused,
        BaseExceptionGroup("several", [other, ended]),
        BaseExceptionGroup("several", [BaseExceptionGroup("more", [other, caused])]),
    ):
        assert _ended_process(error) is ended
    assert _ended_process(BaseExceptionGroup("several", [other])) is None
