"""MAX's own text generation pipeline, set up for one prompt, or for a batch of them."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from max.driver import (
    DeviceSpec,
    accelerator_count,
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.pipelines import PIPELINE_REGISTRY
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib import OverlapTextGenerationPipeline, PipelineArgs, PipelineConfig
from max.pipelines.lib.generate import BatchPipeline
from max.pipelines.lib.pipeline_runtime_config import PipelineRuntimeConfig
from max.pipelines.modeling.types import TextGenerationInputs
from transformers import AutoConfig

import gpt_oss_mxfp4
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, one_line
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.footprint import PREFILL_TOKENS
from gpt_oss_mxfp4.harmony import stop_ids
from gpt_oss_mxfp4.kept_graphs import kept_sampler
from gpt_oss_mxfp4.machine import FINGERPRINT, read_fingerprint
from gpt_oss_mxfp4.model_config import VARIABLES, requested
from gpt_oss_mxfp4.ops.library import PACKAGE, adopt_custom_ops, custom_ops, digest_sources
from gpt_oss_mxfp4.options import (
    CompileOptions,
    EngineOptions,
    ModelOptions,
    Refused,
    SamplingOptions,
)
from gpt_oss_mxfp4.prefill import ChunkedPrefill
from gpt_oss_mxfp4.prompt import Prompt
from gpt_oss_mxfp4.toolchain import cpu_features, vector_extensions, versions

COMPILED_LENGTH = 4096
"""Length that is compiled for, where the model has as many positions; the graphs are the same for every other."""


def load(
    checkpoint: Checkpoint,
    prompt_tokens: int,
    new_tokens: int,
    options: EngineOptions,
    batch: int = 1,
    *,
    reuse: bool = False,
) -> BatchPipeline:
    """Compiles the model into a pipeline, with a KV cache for just the sequences that are to come.

    Args:
        checkpoint: what to run.
        prompt_tokens: length of the longest prompt.
        new_tokens: that a sequence may get beyond its prompt.
        options: where to run it, and how precisely.
        batch: sequences at once.
        reuse: whether a prompt that begins as an earlier one did finds what the KV cache still holds of that.

    Raises:
        Refused: MAX cannot run it on this machine, for want of memory or of a GPU say.
    """
    device = prepare(checkpoint, options)
    prefill = PREFILL_TOKENS[options.devices]
    runtime = PipelineRuntimeConfig(
        custom_architectures=[gpt_oss_mxfp4.__name__],
        max_batch_size=batch,
        # Prompts are cut by ChunkedPrefill; what it is made of wants to be told of all tokens that are to come.
        max_batch_input_tokens=max(prompt_tokens * batch, prefill),
        max_request_input_tokens=max(prefill // batch, 1),
        precompiled_mefs=str(options.precompiled) if options.precompiled else None,
        device_graph_capture=options.device_graphs,
    )
    pipeline = _make_pipeline(checkpoint, device, prompt_tokens + new_tokens, runtime, reuse=reuse)
    if isinstance(pipeline, OverlapTextGenerationPipeline):  # as MAX makes for device graphs
        _capture(pipeline)
    return pipeline


def prepare(checkpoint: Checkpoint, options: EngineOptions) -> DeviceSpec:
    """Asks MAX for the precision, and checks what of the options this machine can do.

    Args:
        checkpoint: what is to be run.
        options: where to run it, and how precisely.

    Returns:
        The device.

    Raises:
        Refused: there is no GPU, the kernel asked for is none, or what is said to be precompiled is of something else.
    """
    _request(options)
    device = DeviceSpec.cpu()
    if options.devices == "gpu":
        if not accelerator_count():
            raise Refused("--devices gpu: MAX finds no GPU on this machine; run with --devices cpu")
        try:
            _requested_kernels()
        except ValueError as error:
            raise Refused(str(error)) from error
        device = DeviceSpec.accelerator()
    if options.precompiled:
        _check_compiled(options.precompiled, _fingerprint(checkpoint, device, options))
        if options.devices == "gpu":  # whose graphs are built all the same
            adopt_custom_ops(options.precompiled / PACKAGE)
    return device


def compile_into(checkpoint: Checkpoint, options: CompileOptions, folder: Path) -> None:
    """Compiles what :func:`load` needs, for a machine that need not be this one, and writes it.

    MAX counts virtual devices for the rest of the process: nothing can run in it afterwards.

    Args:
        checkpoint: what is to be run; of its weights those are read that are rounded while loading.
        options: for what, and how precisely.
        folder: an empty folder.

    Raises:
        Refused: MAX cannot compile it.
    """
    _request(options)
    device = DeviceSpec.cpu()
    on_gpu = options.target != "cpu"
    if on_gpu:
        api, _, architecture = options.target.partition(":")
        set_virtual_device_api(api)
        set_virtual_device_count(1)
        set_virtual_device_target_arch(architecture)
        device = DeviceSpec.accelerator()
    runtime = PipelineRuntimeConfig(
        custom_architectures=[gpt_oss_mxfp4.__name__],
        max_batch_size=1,
        export_mefs=str(folder),
        device_graph_capture=on_gpu,  # which wants the graphs of a pipeline without them, and one more
    )
    length = min(COMPILED_LENGTH, checkpoint.config.max_position_embeddings)
    _make_pipeline(checkpoint, device, length, runtime)
    package = custom_ops()
    if package.name == PACKAGE:
        shutil.copyfile(package, folder / PACKAGE)
    fingerprint = _fingerprint(checkpoint, device, options)
    extensions = " ".join(sorted(vector_extensions()))
    (folder / FINGERPRINT).write_text(f"{fingerprint}\n{extensions}\n")


def _request(options: ModelOptions) -> None:
    """Asks for an option's values where MAX, which makes the model, gives architectures no option of their own."""
    os.environ[VARIABLES["activations"].name] = options.activations
    os.environ[VARIABLES["dense_weights"].name] = options.dense_weights


def _requested_kernels() -> tuple[str, ...]:
    """What the environment asks for on a GPU."""
    return tuple(requested(field) for field in ("kernel", "attention", "dense"))


def _fingerprint(checkpoint: Checkpoint, device: DeviceSpec, options: ModelOptions) -> str:
    """Names what is compiled: MAX itself finds a precompiled graph by its inputs and outputs alone."""
    kind = device.device_type
    if kind == "cpu":
        code: object = cpu_features()
    else:
        code = (*_requested_kernels(), platform.machine())
    precision = (options.activations, options.dense_weights)
    said = repr((checkpoint.config, precision, kind, code, digest_sources(), versions()))
    return hashlib.sha256(said.encode()).hexdigest()


def _check_compiled(folder: Path, fingerprint: str) -> None:
    found, extensions = read_fingerprint(folder)
    if found != fingerprint:
        raise Refused(
            f"--precompiled: {folder} must be compiled for this model, device and precision, by this version; compile "
            "it again"
        )
    # Beside a GPU's code there is some for the CPU, made for the machine that compiled it.
    missing = sorted(set(extensions) - vector_extensions())
    if missing:
        raise Refused(
            f"--precompiled: {folder} holds code for a CPU that has {', '.join(missing)}, which this one has not; "
            "compile it here"
        )


def _check_config(folder: Path) -> None:
    """Refuses a config.json that transformers does not read, for a field that means nothing here."""
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of whatever kind the field's value trips
        cause = one_line(error)
        raise Refused(
            f"{folder / CONFIG_FILE}: must be as transformers has it ({cause})"
        ) from error


def pipeline_arguments(
    checkpoint: Checkpoint,
    device: DeviceSpec,
    runtime: PipelineRuntimeConfig,
    max_length: int | None,
    kv_cache: KVCacheConfig,
    name: str | None = None,
) -> PipelineArgs:
    """Says to MAX what to run.

    Args:
        checkpoint: what to run.
        device: from :func:`prepare`.
        runtime: how.
        max_length: tokens of a sequence, or None for the architecture's default.
        kv_cache: what is kept of sequences.
        name: what a server calls the model, or None for its folder.

    Raises:
        Refused: transformers, by which MAX reads the config, does not read it.
    """
    _check_config(checkpoint.folder)
    return PipelineArgs(
        model_path=str(checkpoint.folder),
        # Named one by one and absolute, so that MAX looks for nothing else and reads no names for an encoding.
        # Links stay: those of a Hub cache lead to files without the suffix that MAX knows a format by.
        weight_path=[file.absolute() for file in checkpoint.files],
        quantization_encoding="float32" if device.device_type == "cpu" else "bfloat16",
        device_specs=[device],
        max_length=max_length,
        served_model_name=name,
        kv_cache=kv_cache,
        runtime=runtime,
    )


def _make_pipeline(
    checkpoint: Checkpoint,
    device: DeviceSpec,
    max_length: int,
    runtime: PipelineRuntimeConfig,
    *,
    reuse: bool = False,
) -> BatchPipeline:
    kv_cache = KVCacheConfig(enable_prefix_caching=reuse)
    arguments = pipeline_arguments(checkpoint, device, runtime, max_length, kv_cache)
    try:
        retrieved = PIPELINE_REGISTRY.retrieve_factory(PipelineConfig.from_args(arguments))
        with kept_sampler():
            pipeline: BatchPipeline = retrieved.factory()
    except CheckpointError:  # a list of faults, which the command shows as it is
        raise
    except (OSError, RuntimeError, ValueError) as error:  # OSError of a file that is read
        raise Refused(one_line(error)) from error
    return pipeline


def _capture(pipeline: OverlapTextGenerationPipeline[Any]) -> None:
    try:
        pipeline.warmup_graph_capture()
    except (RuntimeError, ValueError) as error:
        cause = one_line(error)
        raise Refused(
            f"--device-graphs: MAX cannot capture a step here ({cause}); run without"
        ) from error


def stream(
    pipeline: BatchPipeline, prompt: Prompt, options: SamplingOptions
) -> Generator[list[int], None, None]:
    """Generates until the model ends its answer or the tokens are used up.

    MAX stops at every token that the checkpoint's config.json, its generation_config.json or its tokenizer says ends a
    text. Harmony's are added for its prompts: a fine-tune may have lost the file.

    Args:
        pipeline: from :func:`load`.
        prompt: what to continue.
        options: how to sample.

    Yields:
        The tokens generated since the last, the one that ends the text included; none between two pieces of a prompt.
    """
    with ChunkedPrefill(
        pipeline,
        [prompt.ids],
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=0,
        temperature=options.temperature,
        top_k=options.top_k or -1,
        top_p=1.0 if options.top_p is None else options.top_p,
        repetition_penalty=1.0,
        seed=options.seed,
        stop_token_ids=stop_ids(prompt.tokenizer) if prompt.harmony else None,
    ) as batch:
        for step in batch:
            yield step.get(0, [])


def stream_batch(
    pipeline: BatchPipeline, prompts: Sequence[Sequence[int]], new_tokens: int
) -> Iterator[list[int]]:
    """Continues several prompts at once by their likeliest tokens, past every token that ends a text.

    Args:
        pipeline: from :func:`load`, for as many sequences or more.
        prompts: token ids of each.
        new_tokens: that each gets.

    Returns:
        Gives the next token of each sequence, ``new_tokens`` times; begins when it is asked for the first.
    """
    # With device graphs a step was begun beyond the last one of the batch before: it is not to count for this one.
    if isinstance(pipeline, OverlapTextGenerationPipeline) and pipeline.has_pending_outputs():
        pipeline.execute(TextGenerationInputs(batches=[[]]))
    return _steps(pipeline, prompts, new_tokens)


def _steps(
    pipeline: BatchPipeline, prompts: Sequence[Sequence[int]], new_tokens: int
) -> Iterator[list[int]]:
    given: list[list[int]] = [[] for _ in prompts]
    with ChunkedPrefill(
        pipeline,
        prompts,
        max_new_tokens=new_tokens,
        min_new_tokens=0,
        temperature=0.0,
        top_k=-1,
        top_p=1.0,
        repetition_penalty=1.0,
        ignore_eos=True,
    ) as batch:
        for step in batch:
            for row, tokens in step.items():
                given[row] += tokens
            while all(
                given
            ):  # with device graphs MAX gives a step's with the next; longer prompts begin later
                yield [tokens.pop(0) for tokens in given]
