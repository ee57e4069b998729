"""What a command was asked to do, and how it says that it will not; imported without MAX, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEMO_MODEL = Path(__file__).parent / "demo_model"
"""A small checkpoint that is part of the package: what is run where no model is named."""

MAX_TEMPERATURE = 2.0
"""MAX's own limit."""

MAX_TOKENS = 2**31 - 1
"""Of every count of tokens, and of how many are sampled from; a sequence is shorter."""

CACHE_LOGGER = "max.pipelines.gpt_oss_mxfp4.cache"
"""Logger of what befalls the cache of compiled graphs; MAX shows it with its own, the command as notes."""

HARMONY_LOGGER = "max.serve.gpt_oss_mxfp4"
"""Logger of answers that break the harmony format, which quotes none of them; MAX shows it with its own, ``serve`` as
lines of its log."""

API_KEY_VARIABLE = "GPT_OSS_MXFP4_API_KEY"
"""Environment variable that holds the key of a server's requests, where no file does."""

Effort = Literal["low", "medium", "high"]
"""How long a model reasons before it answers."""

Activations = Literal["bfloat16", "float32", "int8"]
"""What matmuls on a CPU round their inputs to: bf16, nothing, or 8 bits with a scale per 32 (fastest). Attention
and its KV cache take bf16 for 8 bits, too, and float32 where nothing is rounded."""

DenseWeights = Literal["bfloat16", "int8", "mxfp8"]
"""What the weights of attention and of the logits are multiplied as on a CPU: as in the checkpoint, or rounded while
loading to 8 bits with a scale per 32, integers with a bfloat16 scale or OCP's MXFP8 (E4M3, E8M0)."""

GroupedKernel = Literal["sm90", "sm90_mlp", "strided"]
"""What multiplies experts on a GPU: Hopper's tensor cores from weights packed at load, of few tokens by two kernels or
by one for both matmuls, or the reference for any GPU from the checkpoint's own layout."""

AttentionKernel = Literal["max", "sm90"]
"""What a step that generates attends by on a GPU: MAX's kernel, a block of threads to a key-value head of a sequence,
or ours for Hopper, a cluster of them. Prompts are MAX's in both."""

DenseKernel = Literal["max", "sm90"]
"""What multiplies few tokens by the weights of attention and of the router on a GPU: MAX's kernel, or ours for Hopper,
which has more blocks of threads. Many tokens, and the logits, are MAX's in both."""


@dataclass(frozen=True)
class LayerOptions:
    """How layers multiply.

    Args:
        activations: what inputs of matmuls are rounded to on a CPU; the router's never are.
        dense_weights: what the weights of attention and of the logits are on a CPU.
        packed: whether experts are packed for Hopper, or in the checkpoint's layout.
        one_kernel: whether packed experts of few tokens are multiplied by both matrices in one kernel.
        attention: what a step that generates attends by on a GPU.
        dense: what multiplies few tokens by the weights of attention and of the router on a GPU.
    """

    activations: Activations = "bfloat16"
    dense_weights: DenseWeights = "bfloat16"
    packed: bool = False
    one_kernel: bool = False
    attention: AttentionKernel = "max"
    dense: DenseKernel = "max"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What every verb that compiles a model asks for; each field is the argument of the same name, checked by itself.

    Args:
        model: folder or Hub id, or None for the demo model.
        activations: what inputs of matmuls are rounded to on a CPU.
        dense_weights: what the weights of attention and of the logits are multiplied as on a CPU.
        verbose: whether MAX's log is shown.
    """

    model: str | None = None
    activations: Activations = "bfloat16"
    dense_weights: DenseWeights = "bfloat16"
    verbose: bool = False

    @property
    def model_name(self) -> str:
        """What the model is called where the command tells what it does."""
        return "the demo model" if self.model is None else self.model


@dataclass(frozen=True, kw_only=True)
class EngineOptions(ModelOptions):
    """What every verb that runs a model asks for.

    Args:
        devices: "cpu" or "gpu".
        precompiled: folder that ``compile`` has written, or None to compile here.
        threads: CPUs to compute on, or None for all.
        device_graphs: whether a GPU replays the launches of a step that generates, captured once for each number of
            sequences, instead of being told each again.
    """

    devices: str = "cpu"
    precompiled: Path | None = None
    threads: int | None = None
    device_graphs: bool = False


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a text is made, token by token.

    Args:
        max_new_tokens: at least 1; the default is enough to reason and to answer, and an answer ends by itself.
        temperature: 0 for the likeliest token always.
        top_k: tokens to sample from, or None for all.
        top_p: share of probability to sample from, or None for all.
        seed: of the sampling.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(EngineOptions, SamplingOptions):
    """What ``generate`` is asked for.

    Args:
        prompt: text, not empty.
        system: instructions before it, or nothing.
        effort: of the reasoning, or None for what the chat template has.
        show_reasoning: whether the reasoning is printed as well.
        raw: whether the prompt is continued as it is, without the chat template.
    """

    prompt: str
    system: str = ""
    effort: Effort | None = None
    show_reasoning: bool = False
    raw: bool = False


@dataclass(frozen=True, kw_only=True)
class BenchOptions(EngineOptions):
    """What ``bench`` is asked for.

    Args:
        prompt_tokens: of all prompts of a batch together, at least one for each of the largest batch.
        new_tokens: that each sequence gets, at least 2: the first comes with the prompt.
        batch: numbers of sequences to run at once.
        runs: of each batch.
        json: file for the report, or None.
    """

    prompt_tokens: int = 512
    new_tokens: int = 64
    batch: Sequence[int] = (1, 4, 16)
    runs: int = 3
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CompileOptions(ModelOptions):
    """What ``compile`` is asked for.

    Args:
        target: "cpu" for this machine's, or API and architecture of a GPU, which need not be here: "cuda:sm_90a".
        output: folder to write, which must not be there.
    """

    target: str
    output: Path


def rounds_cache(activations: Activations, *, on_cpu: bool) -> bool:
    """Returns whether keys and values are bfloat16: not on a CPU where nothing is rounded, there they are float32."""
    return not on_cpu or activations != "float32"


class Refused(Exception):
    """What was asked for cannot be done; the text says why and what can."""


class Failed(Exception):
    """What was running has broken; the text says how, and the exit code is 1."""
