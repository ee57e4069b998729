"""What one process measured of a model: its runs, its start, its memory, and the machine; as JSON and back.

Every engine that is compared with this one reports in the same form, so nothing here imports any of them.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.toolchain import processor

SEED = 0
"""Of the prompts, so that every engine gets the same ones."""

WARM_UP_TOKENS = 32
"""Tokens of the prompt that is run first: enough that nearly every expert of a layer has been read once."""

_IMPORTED = time.monotonic()

Stream = Callable[[list[list[int]], int], Iterator[list[int]]]
"""Continues prompts of one length: gives the next token of each sequence, as often as the second argument says. What
the iterator does is timed, what it takes to make it is not."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One batch, from its prompts to its last tokens.

    Args:
        batch: sequences.
        prompt_tokens: of all sequences together.
        new_tokens: of all sequences together.
        prompt_seconds: from the start to the first token of each sequence.
        generation_seconds: from there to the last tokens.
    """

    batch: int
    prompt_tokens: int
    new_tokens: int
    prompt_seconds: float
    generation_seconds: float

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens per second, of all sequences together."""
        return self.prompt_tokens / self.prompt_seconds

    @property
    def generation_rate(self) -> float:
        """Tokens per second of all sequences together, without the first of each, which the prompt gives."""
        return (self.new_tokens - self.batch) / self.generation_seconds


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A prompt and the likeliest tokens after it, for a check that engines compute the same.

    Args:
        prompt: token ids.
        generated: token ids.
    """

    prompt: list[int]
    generated: list[int]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every engine is to run.

    Args:
        prompt_tokens: of all prompts of a batch together.
        new_tokens: that each sequence gets.
        batch: numbers of sequences to run at once.
        runs: of each batch.
    """

    prompt_tokens: int
    new_tokens: int
    batch: tuple[int, ...]
    runs: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured.

    Args:
        engine: its name.
        versions: of the packages that matter.
        model: what was run, as it was named.
        options: how it was run.
        threads: how many computed.
        weight_bytes: size of the model's files.
    """

    engine: str
    versions: dict[str, str]
    model: str
    options: dict[str, Any]
    threads: int
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a process measured.

    Args:
        subject: of what.
        machine: on what, see `describe_machine`.
        loaded_seconds: from the start of the process until the model was ready.
        warm_up_seconds: from there to the first token, after a prompt of `WARM_UP_TOKENS` or fewer.
        peak_resident: most memory the process had in use, in bytes; pages of mapped files count.
        runs: in the order in which they ran, after the warm-up.
        sample: of the smallest batch's first sequence.
    """

    subject: Subject
    machine: dict[str, Any]
    loaded_seconds: float
    warm_up_seconds: float
    peak_resident: int
    runs: tuple[Run, ...]
    sample: Sample

    @property
    def first_token_seconds(self) -> float:
        """From the start of the process to the first token."""
        return self.loaded_seconds + self.warm_up_seconds

    def to_json(self) -> str:
        """Returns the report as JSON text; rates are added for readers, `from_json` does without."""
        found = asdict(self)
        found["first_token_seconds"] = self.first_token_seconds
        for run, written in zip(self.runs, found["runs"], strict=True):
            written["prompt_rate"] = run.prompt_rate
            written["generation_rate"] = run.generation_rate
        return format_json(found)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads what `to_json` wrote; what others have added to it is left out."""
        found = _only(cls, json.loads(text))
        runs = tuple(Run(**_only(Run, run)) for run in found.pop("runs"))
        subject, sample = Subject(**found.pop("subject")), Sample(**found.pop("sample"))
        return cls(**found, subject=subject, runs=runs, sample=sample)


def format_json(found: Any) -> str:
    """Returns JSON text for people: indented, but lists of numbers on one line."""

    def join(match: re.Match[str]) -> str:
        return f"[{' '.join(match[1].split())}]"

    return re.sub(r"\[\s+([-+.eE\d,\s]+?)\s+\]", join, json.dumps(found, indent=2)) + "\n"


def _only(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    return {field.name: found[field.name] for field in fields(kind)}


def measure(
    stream: Stream,
    vocab_size: int,
    workload: Workload,
    subject: Subject,
    step: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> Report:
    """Warms up and times every batch; to be called as soon as the model is ready.

    Batches run in turn, so that what else the machine does falls on each alike.

    Args:
        stream: continues prompts by their likeliest tokens.
        vocab_size: of the model.
        workload: what is run.
        subject: what runs it.
        step: is entered around each part, with its name.
    """
    loaded = process_seconds()
    warm_up = random_prompts(1, min(WARM_UP_TOKENS, workload.prompt_tokens), vocab_size)
    with step("warming up"):
        _time(stream, warm_up, 1)
    first_token = process_seconds()
    runs: list[Run] = []
    samples: dict[int, Sample] = {}
    for number in range(1, workload.runs + 1):
        for batch in sorted(set(workload.batch)):
            prompts = random_prompts(batch, workload.prompt_tokens, vocab_size)
            with step(f"run {number} of {workload.runs}, batch {batch}"):
                run, samples[batch] = _time(stream, prompts, workload.new_tokens)
            runs.append(run)
    return Report(
        subject=subject,
        machine=describe_machine(),
        loaded_seconds=loaded,
        warm_up_seconds=first_token - loaded,
        peak_resident=peak_resident(),
        runs=tuple(runs),
        sample=samples[min(samples)],
    )


def _time(stream: Stream, prompts: list[list[int]], new_tokens: int) -> tuple[Run, Sample]:
    generated: list[int] = []
    steps = stream(prompts, new_tokens)
    begin = first = time.perf_counter()
    for tokens in steps:
        if not generated:
            first = time.perf_counter()
        generated.append(tokens[0])
    end = time.perf_counter()
    run = Run(
        batch=len(prompts),
        prompt_tokens=sum(map(len, prompts)),
        new_tokens=len(generated) * len(prompts),
        prompt_seconds=first - begin,
        generation_seconds=end - first,
    )
    return run, Sample(prompt=prompts[0], generated=generated)


def random_prompts(batch: int, prompt_tokens: int, vocab_size: int) -> list[list[int]]:
    """Draws prompts, the same in every process.

    Args:
        batch: how many.
        prompt_tokens: of all together; what does not divide evenly is left out.
        vocab_size: ids are below it.

    Returns:
        `batch` lists of `prompt_tokens // batch` token ids each.
    """
    source = random.Random(SEED)
    length = prompt_tokens // batch
    return [[source.randrange(vocab_size) for _ in range(length)] for _ in range(batch)]


def process_seconds() -> float:
    """Returns the seconds since this process began, the interpreter's own start included where the system tells it."""
    try:
        # The first fields can hold spaces and brackets; field 22, in clock ticks since boot, is the 20th after them.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError):  # not Linux
        return time.monotonic() - _IMPORTED


def peak_resident() -> int:
    """Returns the most memory this process has had in use, in bytes; pages of mapped files count."""
    try:
        # Not ru_maxrss on Linux: a process inherits that from the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def usable_cores() -> int:
    """Returns how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Returns what the figures depend on: processor, its cores, memory, system."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    told = processor()
    if not told:  # not Linux
        return platform.processor()
    name = told.get("model name", platform.machine())
    # Virtual machines often say no more than the maker in the name.
    numbers = [f"{key} {told[key]}" for key in ("cpu family", "model") if key in told]
    return ", ".join([name, *numbers])
