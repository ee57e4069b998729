"""MAX's compiled graphs, kept from one run to the next.

MAX has a cache of its own, but finds a graph there by its content: it has to be built first, which takes seconds for
the model and most of one for the sampler. Here a graph is found by what it would be built from (NOTES N40).
"""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from max.driver import DLPackArray, is_virtual_device_mode
from max.engine import CompiledModel, InferenceSession, Model, read
from max.graph import DeviceRef, Graph
from max.pipelines.lib import PipelineConfig
from max.pipelines.lib.graph_specs import CompiledArtifacts, GraphRole
from max.pipelines.lib.pipeline_variants import text_generation

from gpt_oss_mxfp4.checkpoint.errors import one_line
from gpt_oss_mxfp4.compiled_cache import (
    CACHE_VARIABLE,
    CompiledCache,
    default_folder,
    entry_name,
)
from gpt_oss_mxfp4.options import CACHE_LOGGER
from gpt_oss_mxfp4.toolchain import cpu_features, settings, versions

logger = logging.getLogger(CACHE_LOGGER)

Graphs = tuple[CompiledArtifacts, dict[str, Model]]
"""What was compiled, and the graphs ready to run by role, as MAX's own functions give them."""

_SAMPLER_LOADER = "load_sampler_graphs"


def load_kept(
    session: InferenceSession,
    config: PipelineConfig,
    role: GraphRole,
    made_from: object,
    compile_graph: Callable[[], Graphs],
    weights: Mapping[str, DLPackArray] | None = None,
) -> Graphs:
    """Gives a graph ready to run, compiled now or in an earlier run.

    Graphs for GPUs are MAX's own business. Where MAX is told to export those for a CPU, or to find them precompiled,
    that folder takes the cache's place beside what MAX does there: MAX has to build a graph to find it.

    Args:
        session: what is to run it.
        config: what MAX was asked for.
        role: MAX's name for what the graph does.
        made_from: all that it is built from but the values of weights, as for :func:`entry_name`.
        compile_graph: builds and compiles it.
        weights: what it reads, by name.

    Returns:
        As ``compile_graph``; artifacts only of what was compiled now.
    """
    cache = _cache(session, config)
    if cache is None:
        return compile_graph()
    name = _entry(role.value, (made_from, _defines(config)))
    if not config.runtime.export_mefs:
        model = _init_kept(cache, name, session, weights)
        if model is not None:
            return CompiledArtifacts(), {role: model}
    artifacts, models = compile_graph()
    if config.runtime.export_mefs:
        cache.write(name, artifacts.artifact(role).export_mef)
    elif not cache.fixed:
        _keep(cache, name, artifacts.artifact(role))
    return artifacts, models


def load_graph(session: InferenceSession, graph: Graph) -> Model:
    """Gives a graph without weights ready to run.

    Not by ``session.load``: that looks among precompiled graphs, if there are any, and finds this one missing.
    """
    return session.init(session.compile(graph))


def load_kept_graph(
    session: InferenceSession, made_from: object, build: Callable[[], Graph]
) -> Model:
    """Gives a graph without weights ready to run, one of this package's own that runs on the CPU.

    Args:
        session: what is to run it.
        made_from: all that it is built from, as for :func:`entry_name`.
        build: builds it.
    """
    folder = default_folder()
    if folder is None:
        return load_graph(session, build())
    cache, name = CompiledCache(folder), _entry("graph", made_from)
    model = _init_kept(cache, name, session, None)
    if model is None:
        compiled = session.compile(build())
        _keep(cache, name, compiled)
        model = session.init(compiled)
    return model


def _defines(config: PipelineConfig) -> tuple[object, ...]:
    """What of MAX's options reaches the code of its own kernels, besides the graph."""
    names = ("use_experimental_kernels", "use_vendor_blas", "use_vendor_ccl")
    return tuple(getattr(config.runtime, name, None) for name in names)


def _entry(kind: str, made_from: object) -> str:
    return entry_name(kind, made_from, versions(), cpu_features(), settings())


def _init_kept(
    cache: CompiledCache,
    name: str,
    session: InferenceSession,
    weights: Mapping[str, DLPackArray] | None,
) -> Model | None:
    content = cache.read(name)
    if content is None:
        return None
    try:
        return session.init(read(io.BytesIO(content)), weights_registry=weights)
    except (RuntimeError, ValueError):  # MAX cannot make use of it after all
        cache.remove(name)
        return None


def _keep(cache: CompiledCache, name: str, compiled: CompiledModel) -> None:
    try:
        cache.write(name, compiled.export_mef)
    except (OSError, RuntimeError, ValueError) as error:  # MAX tells of a full disk by a ValueError
        why = getattr(error, "strerror", None) or one_line(error)
        _tell_once(cache.folder, why)


@functools.cache
def _tell_once(folder: Path, why: str) -> None:
    """Once for all graphs of a model, which go to one folder."""
    logger.warning(
        "%s: what was compiled cannot be kept there (%s), so the next start compiles again; %s names another folder",
        folder,
        why,
        CACHE_VARIABLE,
    )


def _cache(session: InferenceSession, config: PipelineConfig) -> CompiledCache | None:
    if is_virtual_device_mode() or not all(device.is_host for device in session.devices):
        return None
    runtime = config.runtime
    if runtime.precompiled_mefs:
        return CompiledCache(Path(runtime.precompiled_mefs), fixed=True)
    folder = Path(runtime.export_mefs) if runtime.export_mefs else default_folder()
    return CompiledCache(folder) if folder else None


@contextmanager
def kept_sampler() -> Iterator[None]:
    """Has MAX's pipelines load their sampler through :func:`load_kept` while they are made.

    Their constructor finds what loads the sampler by name in its module; that is replaced.
    """
    original = getattr(text_generation, _SAMPLER_LOADER)
    setattr(text_generation, _SAMPLER_LOADER, functools.partial(_load_sampler, original))
    try:
        yield
    finally:
        setattr(text_generation, _SAMPLER_LOADER, original)


def _load_sampler(
    original: Callable[..., Graphs],
    session: InferenceSession,
    config: PipelineConfig,
    device: DeviceRef,
    vocab_size: int | None,
) -> Graphs:
    compile_graph = functools.partial(original, session, config, device, vocab_size)
    if config.needs_bitmask_constraints:  # two samplers then
        return compile_graph()
    made_from = (config.sampling, device, vocab_size)
    return load_kept(session, config, GraphRole.SAMPLER, made_from, compile_graph)
