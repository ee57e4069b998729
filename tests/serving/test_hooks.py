"""The hooks are in place where a server runs, and say so at the start where MAX's server is another."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.serving.scripted import MODEL, ScriptedServer
from tests.serving.server import ENVIRONMENT


@pytest.fixture(autouse=True)
def installed(scripted: ScriptedServer) -> None:
    """A server has been made."""


@pytest.mark.parametrize(
    "name",
    [
        *("next_token_chunk", "complete", "get_tool_parser", "_parse_openai_request_body"),
        "_process_log_probabilities",
    ],
)
@pytest.mark.parametrize("replacement", [None, lambda self, other: None])
def test_another_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, replacement: Any
) -> None:
    from gpt_oss_mxfp4.endpoint import hooks

    [(owner, _, expected)] = [entry for entry in hooks._EXPECTED if entry[1] == name]
    monkeypatch.setattr(owner, name, replacement)
    if replacement is None:
        monkeypatch.delattr(owner, name)
    with pytest.raises(RuntimeError) as raised:
        hooks.check_server()
    got = "none of that name" if replacement is None else "self, other"
    owner_name = owner.__name__
    assert str(raised.value) == (
        f"max.serve: {owner_name}.{name} must take {', '.join(expected)}, as in MAX 26.7.0, got {got}"
    )


def test_other_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt_oss_mxfp4.endpoint import hooks

    monkeypatch.setattr(hooks, "_CHUNK_FIELDS", {"token_ids", "tokens_of_old"})
    with pytest.raises(RuntimeError) as raised:
        hooks.check_server()
    message = "max.serve: TokenGeneratorOutput must have tokens_of_old, as in MAX 26.7.0"
    assert str(raised.value) == message


def test_nothing_is_hooked_into_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt_oss_mxfp4.endpoint import hooks
    from gpt_oss_mxfp4.endpoint.tokenizer import HarmonyTokenizer

    monkeypatch.setattr(hooks, "_CHUNK_FIELDS", {"tokens_of_old"})
    with pytest.raises(RuntimeError, match="must have tokens_of_old"):
        hooks.install.__wrapped__(HarmonyTokenizer)


def test_hooks_are_installed_once() -> None:
    from max.serve.pipelines.llm import TokenGeneratorPipeline

    from gpt_oss_mxfp4.endpoint import hooks
    from gpt_oss_mxfp4.endpoint.tokenizer import HarmonyTokenizer

    before = TokenGeneratorPipeline.next_token_chunk
    hooks.install(HarmonyTokenizer)
    assert TokenGeneratorPipeline.next_token_chunk is before


def test_another_model_s_server_is_left_alone() -> None:
    from max.serve.schemas.openai import CreateCompletionRequest

    from gpt_oss_mxfp4.endpoint import hooks
    from gpt_oss_mxfp4.endpoint.tokenizer import HarmonyTokenizer

    pipeline: Any = SimpleNamespace(tokenizer="another's")
    app: Any = SimpleNamespace(state=SimpleNamespace(pipeline=pipeline))
    request = CreateCompletionRequest(model="another", prompt="Hi", seed=0, best_of=2)

    async def chunks(self: Any, request: Any, *, parse_reasoning: bool = True) -> Any:
        return request, parse_reasoning

    async def complete(self: Any, requests: Any) -> Any:
        return "as it is"

    async def parse_body(request: Any, request_id: Any, model_cls: Any) -> Any:
        return request.body

    telling = hooks._telling_turns(HarmonyTokenizer, chunks)
    assert asyncio.run(telling(pipeline, "request", parse_reasoning=True)) == ("request", True)
    completing = hooks._as_openai_has_it(HarmonyTokenizer, complete)
    assert asyncio.run(completing(SimpleNamespace(pipeline=pipeline), [request])) == "as it is"
    parser = hooks._reading_calls(HarmonyTokenizer, lambda app: "its own parser")
    assert parser(app) == "its own parser"
    parsing = hooks._refusing_the_ignored(HarmonyTokenizer, parse_body)
    sent = SimpleNamespace(app=app, body=request)
    assert asyncio.run(parsing(sent, "1", CreateCompletionRequest)).seed == 0


def test_max_imports_its_routes_before_it_makes_a_tokenizer() -> None:
    """On which it hangs whether a tokenizer knows that it is a server's."""
    code = (
        "import sys; import max._entrypoints.cli.serve.serve_api_and_model_worker;"
        "from gpt_oss_mxfp4.endpoint.tokenizer import SERVER; assert SERVER in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


def test_embeddings_are_left_to_max(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("max.serve"), "handlers", [caplog.handler])
    scripted.worker.say("")
    answer = scripted.http.post("/v1/embeddings", json={"model": MODEL, "input": "Hi"})
    assert answer.status_code == 500
    assert "No embeddings were generated" in caplog.text, "the request has not reached the model"


def test_the_tokenizer_goes_to_the_worker_as_it_is(scripted: ScriptedServer) -> None:
    hidden = scripted.tokenizer._encoder.hide("<|start|>")
    asyncio.run(scripted.tokenizer.encode(hidden, False))  # has made its copy for such text
    tokenizer = pickle.loads(pickle.dumps(scripted.tokenizer))
    assert tokenizer.eos_token_ids == scripted.tokenizer.eos_token_ids
    assert (
        asyncio.run(tokenizer.encode(hidden, False)).tolist()
        == asyncio.run(scripted.tokenizer.encode(hidden, False)).tolist()
    )


@pytest.mark.parametrize(
    ("asked", "heeded"),
    [
        ({}, {"min_p": True}),
        ({"device_type": "cpu"}, {}),
        ({"sample_on_host": True}, {}),
        ({"device_type": "cpu", "enable_penalties": True}, {"penalties": True}),
        ({"device_type": "cpu", "enable_min_tokens": True}, {"min_tokens": True}),
        ({"enable_overlap_scheduler": True}, {"min_p": True, "log_probabilities": False}),
        (
            {"enable_overlap_scheduler": True, "allow_unsupported_logprobs": True},
            {"min_p": True},
        ),
    ],
)
def test_what_the_sampler_heeds_is_what_max_was_asked_for(
    asked: dict[str, Any], heeded: dict[str, bool]
) -> None:
    from gpt_oss_mxfp4.endpoint import hooks
    from gpt_oss_mxfp4.endpoint.requests import Sampler

    options = {
        **{"enable_penalties": False, "enable_min_tokens": False},
        **{"sample_on_host": False, "device_type": "gpu", "enable_overlap_scheduler": False},
        "allow_unsupported_logprobs": False,
        **asked,
    }
    config: Any = SimpleNamespace(
        sampling=SimpleNamespace(**options),
        runtime=SimpleNamespace(**options),
        model=SimpleNamespace(device_specs=[SimpleNamespace(**options)]),
    )
    assert hooks._sampler(config) == Sampler(**heeded)


def test_max_compiles_one_sampler(scripted: ScriptedServer) -> None:
    assert not scripted.app.state.pipeline_config.needs_bitmask_constraints
