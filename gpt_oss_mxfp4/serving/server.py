"""MAX's API server and its worker processes, started as ``max serve`` starts them, behind :class:`Front`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from max.pipelines import PIPELINE_REGISTRY
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib import PipelineConfig
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from max.pipelines.modeling.types import PipelineTask
from max.serve.api_server import ServingTokenGeneratorSettings, fastapi_app, lifespan
from max.serve.config import APIType, Settings
from max.serve.process_control import SubprocessExit

import gpt_oss_mxfp4
from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, one_line
from gpt_oss_mxfp4.footprint import PREFILL_TOKENS
from gpt_oss_mxfp4.kept_graphs import kept_sampler
from gpt_oss_mxfp4.machine import loading_step
from gpt_oss_mxfp4.options import CACHE_LOGGER, Failed, Refused
from gpt_oss_mxfp4.process import temporary_folder
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.serving.api_key import ApiKeys
from gpt_oss_mxfp4.serving.app import extend
from gpt_oss_mxfp4.serving.children import tied_children
from gpt_oss_mxfp4.serving.error_log import tell_errors
from gpt_oss_mxfp4.serving.front import Front, Phase
from gpt_oss_mxfp4.serving.generations import follow_generations
from gpt_oss_mxfp4.serving.options import ServeOptions
from gpt_oss_mxfp4.serving.protocol import Protocol
from gpt_oss_mxfp4.serving.sockets import url
from gpt_oss_mxfp4.serving.stopping import on_signals


@contextlib.contextmanager
def _sockets_removed() -> Iterator[None]:
    """Has MAX's processes put the sockets that they talk through into a folder of this run's: they remove none."""
    before = tempfile.tempdir
    with temporary_folder() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


@_sockets_removed()
def serve(
    checkpoint: Checkpoint,
    options: ServeOptions,
    keys: ApiKeys,
    listening: socket.socket,
    metrics_port: int,
    progress: Progress,
) -> None:
    """Serves until a signal stops it.

    Args:
        checkpoint: what to run.
        options: how.
        keys: what requests must carry.
        listening: the socket that clients connect to.
        metrics_port: where MAX is to serve its metrics.
        progress: gets steps, and a line for each request.

    Raises:
        Refused: MAX cannot run the model on this machine.
        Failed: one of its processes ended.
    """
    settings = Settings(
        MAX_SERVE_API_TYPES=[APIType.OPENAI],
        MAX_SERVE_HOST=options.host,
        MAX_SERVE_PORT=listening.getsockname()[1],
        MAX_SERVE_METRICS_ENDPOINT_PORT=metrics_port,
        MAX_SERVE_MAX_REQUEST_BYTES=options.max_body_bytes,
        MAX_SERVE_LOGS_CONSOLE_LEVEL="INFO" if options.verbose else "CRITICAL",
        MAX_SERVE_DISABLE_TELEMETRY=False,  # its metrics port too would go; see run_serve
        MAX_SERVE_GRACEFUL_SHUTDOWN_TIMEOUT_S=options.drain_seconds,
    )
    model = _model(checkpoint, options)
    app = fastapi_app(settings, model)
    front = Front(
        app,
        model=options.served_name,
        vocab_size=checkpoint.config.vocab_size,
        keys=keys,
        max_body_bytes=options.max_body_bytes,
        tell=progress.note,
        open_paths=extend(app, options),
    )
    if not options.verbose:
        tell_errors(progress.note)
    server = _Server(_uvicorn_config(front, settings))
    with tied_children(options.verbose):
        uvloop.run(_Serving(options, settings, model, app, front, server, progress).run(listening))


def _model(checkpoint: Checkpoint, options: ServeOptions) -> ServingTokenGeneratorSettings:
    device = engine.prepare(checkpoint, options)
    batch = options.cpu_batch_size if options.devices == "cpu" else options.max_batch_size
    runtime = PipelineRuntimeConfig(
        custom_architectures=[gpt_oss_mxfp4.__name__],
        max_batch_size=batch,
        max_batch_input_tokens=PREFILL_TOKENS[options.devices],
        # Else a step is of prompts or of answers, and every answer waits until all prompts have been read.
        enable_in_flight_batching=options.devices == "cpu",
        precompiled_mefs=str(options.precompiled) if options.precompiled else None,
        device_graph_capture=options.device_graphs,
    )
    arguments = engine.pipeline_arguments(
        checkpoint, device, runtime, options.max_length, KVCacheConfig(), options.served_name
    )
    try:
        config = PipelineConfig.from_args(arguments)
        retrieved = PIPELINE_REGISTRY.retrieve_factory(config, task=PipelineTask.TEXT_GENERATION)
    except CheckpointError:  # a list of faults, which the command shows as it is
        raise
    except (RuntimeError, ValueError) as error:
        raise Refused(one_line(error)) from error
    return ServingTokenGeneratorSettings(
        model_factory=_Factory(retrieved.factory),
        pipeline_config=config,
        tokenizer=retrieved.tokenizer,
        task=PipelineTask.TEXT_GENERATION,
        reasoning_parser_name=config.runtime.reasoning_parser,
        temperature=config.runtime.temperature,
        thinking_temperature=config.runtime.thinking_temperature,
        memory_plan=retrieved.memory_plan,
    )


@dataclass
class _Factory:
    """Makes the pipeline in the worker, with the kept sampler, and tells there what befalls the cache."""

    factory: Callable[[], Any]

    def __call__(self) -> Any:
        cache = logging.getLogger(CACHE_LOGGER)
        cache.handlers, cache.propagate = [logging.StreamHandler(sys.stderr)], False
        cache.setLevel(logging.WARNING)
        with kept_sampler():
            return self.factory()


def _uvicorn_config(front: Front, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app=front,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.http_keepalive_timeout_s,
        timeout_graceful_shutdown=settings.graceful_shutdown_timeout_s,
    )


def _ended_process(error: BaseException) -> SubprocessExit | None:
    """Finds the end of one of MAX's processes in what it led to: one error, several at once, or the cause of one."""
    if isinstance(error, SubprocessExit):
        return error
    nested = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    if error.__cause__ is not None:
        nested.append(error.__cause__)
    return next((found for found in map(_ended_process, nested) if found), None)


class _Server(uvicorn.Server):
    """uvicorn's, but that signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


@dataclass
class _Serving:
    """One run of the server: loading, serving, stopping."""

    options: ServeOptions
    settings: Settings
    model: ServingTokenGeneratorSettings
    app: FastAPI
    front: Front
    server: _Server
    progress: Progress

    async def run(self, listening: socket.socket) -> None:
        """Answers from the start, with 503 as long as the model is loaded; MAX's processes end when this returns."""
        task = asyncio.current_task()
        assert task is not None
        on_signals(lambda: self._stop(task))
        answering = asyncio.create_task(self.server.serve([listening]))
        try:
            await self._serve(answering)
        except asyncio.CancelledError:
            if self.front.phase is not Phase.STOPPING:
                raise
        except Exception as error:
            ended = _ended_process(error)
            if ended is None:
                raise
            when = "while it was loaded" if self.front.phase is Phase.LOADING else "by itself"
            raise Failed(
                f"the model's process ended {when} ({ended}): so does the server"
            ) from error
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        self.progress.note("stopped")

    async def _serve(self, answering: asyncio.Task[None]) -> None:
        running = contextlib.ExitStack()
        running.enter_context(self.progress.step(*loading_step(self.options)))
        with running:
            base = self.app.state.zmq_endpoint_base
            async with lifespan(self.app, self.settings, self.model, base):
                await self._answer_once()
                follow_generations()
                running.close()
                self.front.phase = Phase.READY
                address = url(self.settings.host, self.settings.port)
                page = f", with a page to chat on at {address}/" if self.options.ui else ""
                metrics = url(self.settings.host, self.settings.metrics_port)
                self.progress.note(
                    f"serving {self.options.served_name} on {address}{page}, metrics on {metrics}/metrics "
                    "(Ctrl-C stops)"
                )
                await answering

    async def _answer_once(self) -> None:
        """Has the model answer, before anyone is told that it does.

        With log probabilities, whose graph is compiled or loaded when they are first asked for: for a client's
        request all others would wait. MAX has none beside device graphs.
        """
        name = self.options.served_name
        request = {"model": name, "prompt": [0], "max_tokens": 1}
        if not self.options.device_graphs:
            request["logprobs"] = 1
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answer = await client.post("/v1/completions", json=request, timeout=None)
        if answer.status_code != 200:
            raise Failed(f"the model does not answer ({answer.text})")

    def _stop(self, task: asyncio.Task[None]) -> None:
        loading = self.front.phase is Phase.LOADING
        self.front.phase = Phase.STOPPING
        self.server.should_exit = True
        if loading:
            task.cancel()
        elif self.front.running:
            self.progress.note(
                f"stopping: {self.front.running} running requests get {self.options.drain_seconds} s; a second signal "
                "ends at once"
            )
