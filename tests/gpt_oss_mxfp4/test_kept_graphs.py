"""When a compiled graph is taken from the cache, when it is compiled, and what of it is kept; a model's is not."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType
from max.nn.transformer import ReturnLogits
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib.graph_specs import CompiledArtifacts, GraphRole
from max.pipelines.lib.pipeline_variants import text_generation

from gpt_oss_mxfp4 import kept_graphs, pipeline
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.compiled_cache import CACHE_VARIABLE, entry_name
from gpt_oss_mxfp4.kept_graphs import kept_sampler, load_graph, load_kept
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.model import GptOss
from gpt_oss_mxfp4.model_config import GptOssArchConfig
from gpt_oss_mxfp4.options import CACHE_LOGGER, LayerOptions
from tests.golden import CHECKPOINT

MODEL = b"compiled"


class Session:
    """Takes the place of MAX's: initializes what is MODEL."""

    def __init__(self, *, gpu: bool = False) -> None:
        self.devices = [SimpleNamespace(is_host=True)] + [SimpleNamespace(is_host=False)] * gpu

    def init(self, compiled: bytes, *, weights_registry: Any) -> Any:
        if compiled != MODEL:
            raise RuntimeError("failed to deserialize")
        return "found", weights_registry


class Compiler:
    """Compiles, and counts how often."""

    def __init__(
        self, export: Callable[[Path], Any] = lambda path: path.write_bytes(MODEL)
    ) -> None:
        self.count = 0
        self.artifacts = SimpleNamespace(artifact=lambda role: SimpleNamespace(export_mef=export))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        return self.artifacts, {GraphRole.DECODER: "compiled", GraphRole.SAMPLER: "compiled"}


def pipeline_config(**runtime: str) -> Any:
    defaults = {"precompiled_mefs": None, "export_mefs": None}
    return SimpleNamespace(
        runtime=SimpleNamespace(**{**defaults, **runtime}),
        sampling="sampling",
        needs_bitmask_constraints=False,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(kept_graphs, "read", lambda file: file.read())
    return tmp_path / "cache"


def load(compiler: Compiler, made_from: object = "config", **how: Any) -> Any:
    session, config = how.get("session", Session()), how.get("config", pipeline_config())
    return load_kept(session, config, GraphRole.DECODER, made_from, compiler, {"w": 1})


def test_a_graph_is_compiled_once() -> None:
    compiler = Compiler()
    assert load(compiler)[1][GraphRole.DECODER] == "compiled"
    artifacts, models = load(compiler)
    assert compiler.count == 1
    assert models == {GraphRole.DECODER: ("found", {"w": 1})}
    assert artifacts == CompiledArtifacts()


@pytest.mark.parametrize("ingredient", ["made_from", "versions", "cpu_features", "settings"])
def test_it_is_compiled_again_where_anything_differs(
    monkeypatch: pytest.MonkeyPatch, ingredient: str
) -> None:
    compiler = Compiler()
    load(compiler)
    if ingredient == "made_from":
        load(compiler, "other config")
    else:
        monkeypatch.setattr(kept_graphs, ingredient, lambda: ("other",))
        load(compiler)
    assert compiler.count == 2


def test_what_max_cannot_read_is_replaced(folder: Path) -> None:
    load(Compiler(lambda path: path.write_bytes(b"of another MAX")))
    compiler = Compiler()
    load(compiler)
    load(compiler)
    assert compiler.count == 1
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("failed to write:\n  no space"),
        ValueError("failed to write: no space"),  # MAX 26.7.0 at a full disk
        OSError(28, "failed to write: no space"),
    ],
)
def test_what_cannot_be_kept_is_told_and_runs(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(path: Path) -> None:
        raise error

    # As MAX's own commands have it; a command of this package that a test has run takes the logger for itself.
    for attribute, value in {"propagate": True, "handlers": [], "level": logging.WARNING}.items():
        monkeypatch.setattr(logging.getLogger(CACHE_LOGGER), attribute, value)
    compiler = Compiler(fail)
    assert load(compiler)[1][GraphRole.DECODER] == "compiled"
    load(compiler, "another graph")  # which needs no note of its own
    assert caplog.messages == [
        f"{folder}: what was compiled cannot be kept there (failed to write: no space), so the next start compiles "
        f"again; {CACHE_VARIABLE} names another folder"
    ]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "how",
    [
        {"session": Session(gpu=True)},
        {"session": Session(gpu=True), "config": pipeline_config(precompiled_mefs="folder")},
        {"session": Session(gpu=True), "config": pipeline_config(export_mefs="folder")},
    ],
    ids=["gpu", "precompiled", "export"],
)
def test_what_is_max_s_own_business_is_left_to_it(folder: Path, how: Any) -> None:
    compiler = Compiler()
    load(compiler, **how)
    load(compiler, **how)
    assert compiler.count == 2
    assert not folder.exists()


def test_what_is_exported_is_found_precompiled_and_the_folder_stays_as_it_is(
    folder: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "exported"
    compiler = Compiler()
    load(compiler, config=pipeline_config(export_mefs=str(exported)))
    [file] = exported.iterdir()
    before = (file.stat().st_mtime_ns, file.read_bytes())
    precompiled = pipeline_config(precompiled_mefs=str(exported))
    assert load(compiler, config=precompiled)[1] == {GraphRole.DECODER: ("found", {"w": 1})}
    assert compiler.count == 1
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    file.write_bytes(b"damaged")
    load(compiler, config=precompiled)
    load(compiler, "other config", config=precompiled)
    assert compiler.count == 3
    assert [file.read_bytes() for file in exported.iterdir()] == [b"damaged"]
    assert not folder.exists()


def test_nothing_is_kept_where_the_variable_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "")
    compiler = Compiler()
    load(compiler)
    load(compiler)
    assert compiler.count == 2


def test_a_pipeline_s_sampler_is_kept_too_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    monkeypatch.setattr(text_generation, "load_sampler_graphs", compiler)

    def make(config: Any = None, vocab_size: int = 384) -> None:
        """As MAX's constructor."""
        text_generation.load_sampler_graphs(
            Session(), config or pipeline_config(), "cpu", vocab_size
        )

    with kept_sampler():
        make()
        make()
        assert compiler.count == 1
        make(vocab_size=385)
        assert compiler.count == 2
        other_sampling = pipeline_config()
        other_sampling.sampling = "other sampling"
        make(config=other_sampling)
        assert compiler.count == 3
        two_samplers = pipeline_config()
        two_samplers.needs_bitmask_constraints = True
        make(config=two_samplers)
        assert compiler.count == 4
    assert text_generation.load_sampler_graphs is compiler


def test_max_still_loads_its_sampler_by_the_name_that_is_replaced() -> None:
    assert (
        "load_sampler_graphs" in text_generation.TextGenerationPipeline.__init__.__code__.co_names
    )


def test_a_graph_is_compiled_where_others_are_precompiled(tmp_path: Path) -> None:
    def graph(name: str) -> Graph:
        x = TensorType(DType.float32, ["n"], DeviceRef.CPU())
        with Graph(name, input_types=[x]) as built:
            built.output(built.inputs[0].tensor + 1)
        return built

    InferenceSession(devices=[CPU()], export_mefs=str(tmp_path)).load(graph("one"))
    session = InferenceSession(devices=[CPU()], precompiled_mefs=str(tmp_path))
    with pytest.raises(RuntimeError):
        session.load(graph("other"))
    [y] = load_graph(session, graph("other")).execute(np.ones(2, np.float32))
    assert isinstance(y, Buffer)
    assert y.to_numpy().tolist() == [2, 2]


def test_the_model_s_graph_is_named_by_all_that_it_is_built_from() -> None:
    checkpoint, cpu = open_checkpoint(CHECKPOINT), DeviceRef.CPU()
    clamped = dataclasses.replace(checkpoint.config, swiglu_limit=6.0)
    config = GptOssArchConfig(
        checkpoint=checkpoint,
        devices=[cpu],
        layers=LayerOptions(),
        kv_params=kv_cache_params(checkpoint.config, KVCacheConfig(), cpu, "bfloat16"),
        max_seq_len=1024,
    )
    pages = kv_cache_params(
        checkpoint.config, KVCacheConfig(kv_cache_page_size=256), cpu, "bfloat16"
    )
    others = [
        dataclasses.replace(config, layers=LayerOptions(activations="float32")),
        dataclasses.replace(config, checkpoint=dataclasses.replace(checkpoint, config=clamped)),
        dataclasses.replace(config, kv_params=pages),
        dataclasses.replace(config, devices=[DeviceRef.GPU()]),
    ]
    made_from = [pipeline._graph_arguments(c, ReturnLogits.LAST_TOKEN) for c in [config, *others]]
    made_from.append(pipeline._graph_arguments(config, ReturnLogits.ALL))
    assert len({entry_name("decoder", each) for each in made_from}) == len(made_from)
    # An address would make it another name in each process; the context's length is no part of the graph.
    assert " at 0x" not in repr(made_from)
    longer = dataclasses.replace(config, max_seq_len=4096)
    assert repr(pipeline._graph_arguments(longer, ReturnLogits.LAST_TOKEN)) == repr(made_from[0])


def test_nothing_of_the_model_s_graph_has_a_default() -> None:
    """What is not among the arguments that name it is not among those that build it."""
    parameters = list(inspect.signature(GptOss).parameters.values())
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters)
