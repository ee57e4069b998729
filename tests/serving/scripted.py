"""A server whose model says what a test has written: MAX's own routes and tokenizer, in this process, no graph."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import max.serve.api_server  # noqa: F401  a server's process has it before it makes a tokenizer
from fastapi import FastAPI
from fastapi.testclient import TestClient
from max.pipelines.context import (
    GenerationStatus,
    LogProbabilities,
    TextContext,
    TextGenerationOutput,
)
from max.pipelines.lib import PipelineArgs, PipelineConfig
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from max.serve.api_server import ServingTokenGeneratorSettings, fastapi_app
from max.serve.config import Settings
from max.serve.pipelines.llm import TokenGeneratorPipeline
from openai import OpenAI

from gpt_oss_mxfp4.endpoint.tokenizer import HarmonyTokenizer
from gpt_oss_mxfp4.options import DEMO_MODEL

MODEL = "scripted"
MAX_LENGTH = 1024


class ScriptedWorker:
    """Stands in for MAX's worker process: generates a script's tokens for every request.

    Args:
        tokenizer: of the server.
    """

    def __init__(self, tokenizer: HarmonyTokenizer) -> None:
        self._tokenizer = tokenizer
        self.script: list[int] = []
        self.tokens_at_once = 1
        self.contexts: list[TextContext] = []
        self.cancelled: list[Any] = []
        self.generated = 0
        self.generating = False

    def say(self, text: str) -> None:
        """Has each request answered with a text's tokens, special ones among them."""
        self.script = self._tokenizer.delegate.encode(text, add_special_tokens=False)

    @property
    def prompt(self) -> str:
        """The last request's prompt, with its special tokens."""
        return str(self._tokenizer.delegate.decode(self.contexts[-1].tokens.prompt.tolist()))

    def note_awaiting_admission(self, change: int) -> None:
        """Counts nothing."""

    def cancel(self, request_id: Any) -> None:
        self.cancelled.append(request_id)

    async def stream(
        self, request_id: Any, context: TextContext
    ) -> AsyncGenerator[tuple[list[TextGenerationOutput], int], None]:
        self.contexts.append(context)
        return self._generate(request_id, context)

    async def _generate(
        self, request_id: Any, context: TextContext
    ) -> AsyncGenerator[tuple[list[TextGenerationOutput], int], None]:
        limit = context.max_length - context.tokens.prompt_length
        ids = self.script[:limit]
        stops = context.eos_tracker.eos_token_ids
        end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
        self.generated = 0
        self.generating = True
        try:
            async for outputs in self._some(request_id, context, ids, end, stops):
                yield outputs
        finally:
            self.generating = False

    async def _some(
        self, request_id: Any, context: TextContext, ids: list[int], end: int, stops: set[int]
    ) -> AsyncGenerator[tuple[list[TextGenerationOutput], int], None]:
        for begin in range(0, end, self.tokens_at_once):
            some = ids[begin : min(begin + self.tokens_at_once, end)]
            self.generated += len(some)
            status = GenerationStatus.ACTIVE
            if begin + len(some) >= end:
                stopped = some[-1] in stops
                status = (
                    GenerationStatus.END_OF_SEQUENCE if stopped else GenerationStatus.MAXIMUM_LENGTH
                )
            output = TextGenerationOutput(
                request_id=request_id,
                tokens=some,
                final_status=status,
                log_probabilities=_probable(context, some),
            )
            yield [output], begin


def _probable(context: TextContext, ids: list[int]) -> list[LogProbabilities] | None:
    """Each token's own log probability is -id / 1024."""
    if not context.log_probabilities:
        return None
    return [
        LogProbabilities(
            token_log_probabilities=[-i / 1024],
            top_log_probabilities=[{i: -i / 1024}],
            sampled_token_ids=[i],
        )
        for i in ids
    ]


class ScriptedServer:
    """MAX's routes, as they are, before a scripted model with the demo model's tokenizer and template.

    Args:
        runtime: options of ``max serve`` beside the model.
    """

    def __init__(self, **runtime: Any) -> None:
        config = PipelineConfig.from_args(
            PipelineArgs(
                model_path=str(DEMO_MODEL),
                quantization_encoding="float32",
                max_length=MAX_LENGTH,
                device_specs=_cpu(),
                runtime=PipelineRuntimeConfig(custom_architectures=["gpt_oss_mxfp4"], **runtime),
            )
        )
        self.tokenizer = HarmonyTokenizer(str(DEMO_MODEL), config, max_length=MAX_LENGTH)
        self.worker = ScriptedWorker(self.tokenizer)
        self.app = self._app(config)
        # One event loop for all requests, which server-sent events need.
        self.http = TestClient(self.app, raise_server_exceptions=False).__enter__()
        self.client: Any = OpenAI(
            base_url="http://testserver/v1", api_key="none", http_client=self.http, max_retries=0
        )

    def _app(self, config: PipelineConfig) -> FastAPI:
        settings = Settings()
        app = fastapi_app(
            settings, ServingTokenGeneratorSettings(lambda: None, config, self.tokenizer)
        )
        app.router.lifespan_context = _nothing_to_start
        app.state.pipeline_config = config
        app.state.pipeline = TokenGeneratorPipeline(MODEL, self.tokenizer, self.worker)
        return app

    def close(self) -> None:
        """Ends the event loop."""
        self.http.__exit__(None, None, None)


@asynccontextmanager
async def _nothing_to_start(_: FastAPI) -> AsyncGenerator[None, None]:
    yield


def _cpu() -> list[Any]:
    from max.driver import DeviceSpec

    return [DeviceSpec.cpu()]
