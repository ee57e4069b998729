"""Reports: rates, JSON and back, and what a process says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from gpt_oss_mxfp4.measurement import (
    Report,
    Run,
    Sample,
    Subject,
    Workload,
    describe_machine,
    format_json,
    measure,
    peak_resident,
    process_seconds,
    random_prompts,
    usable_cores,
)

RUN = Run(batch=4, prompt_tokens=512, new_tokens=256, prompt_seconds=16, generation_seconds=12)

REPORT = Report(
    subject=Subject(
        engine="an engine",
        versions={"max": "26.7.0"},
        model="a model",
        options={"activations": "bfloat16"},
        threads=2,
        weight_bytes=4_000_000_000,
    ),
    machine={"cpu": "a processor", "cores": 2},
    loaded_seconds=8.5,
    warm_up_seconds=0.25,
    peak_resident=5_000_000_000,
    runs=(RUN, replace(RUN, generation_seconds=9)),
    sample=Sample(prompt=[3, 1], generated=[4, 1, 5]),
)


def test_rates_are_of_all_sequences_and_the_first_tokens_belong_to_the_prompt() -> None:
    assert RUN.prompt_rate == 32
    assert RUN.generation_rate == 21  # (256 - 4) / 12


def test_a_report_survives_json() -> None:
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_a_report_has_what_readers_want_without_arithmetic() -> None:
    fields = json.loads(REPORT.to_json())
    assert fields["first_token_seconds"] == 8.75
    assert [run["generation_rate"] for run in fields["runs"]] == [21, 28]
    assert fields["runs"][0]["prompt_rate"] == 32


def test_lists_of_numbers_are_on_one_line() -> None:
    found = {
        "ids": [1, 22, 3],
        "rates": [-1.5e-7, 2.0],
        "text": "[ 1,\n 2 ]",
        "none": [],
        "more": [{"a": 1}],
    }
    text = format_json(found)
    assert json.loads(text) == found
    assert '"ids": [1, 22, 3],\n' in text
    assert '"rates": [-1.5e-07, 2.0],\n' in text


def test_batches_run_in_turn_after_a_warm_up() -> None:
    calls: list[tuple[int, int, int]] = []
    steps: list[str] = []

    def stream(prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        calls.append((len(prompts), len(prompts[0]), new_tokens))
        for i in range(new_tokens):
            time.sleep(0.05 if i else 0.2)
            yield [10 * len(prompts) + i, *[0] * (len(prompts) - 1)]

    def step(text: str) -> AbstractContextManager[None]:
        steps.append(text)
        return nullcontext()

    workload = Workload(prompt_tokens=40, new_tokens=3, batch=(4, 1), runs=2)
    report = measure(stream, 100, workload, REPORT.subject, step)
    assert calls == [(1, 32, 1), *[(1, 40, 3), (4, 10, 3)] * 2]
    assert steps[:3] == ["warming up", "run 1 of 2, batch 1", "run 1 of 2, batch 4"]
    assert [(run.batch, run.prompt_tokens, run.new_tokens) for run in report.runs] == [
        (1, 40, 3),
        (4, 40, 12),
    ] * 2
    assert report.sample == Sample(prompt=random_prompts(1, 40, 100)[0], generated=[10, 11, 12])
    assert report.warm_up_seconds == pytest.approx(0.2, abs=0.1)
    for run in report.runs:
        assert run.prompt_seconds == pytest.approx(0.2, abs=0.1)
        assert run.generation_seconds == pytest.approx(0.1, abs=0.08)


def test_prompts_are_the_same_every_time_and_share_the_tokens() -> None:
    prompts = random_prompts(4, 30, 100)
    assert prompts == random_prompts(4, 30, 100)
    assert [len(prompt) for prompt in prompts] == [7] * 4
    assert len({tuple(prompt) for prompt in prompts}) == 4
    assert {token for prompt in random_prompts(1, 2000, 100) for token in prompt} == set(range(100))


def test_a_process_counts_its_own_time_and_memory() -> None:
    """Of a child, whose parent here has a larger peak and an earlier start."""
    script = (
        "import time; from gpt_oss_mxfp4.measurement import *; small = peak_resident(); block = b'x' * 200_000_000\n"
        "print(process_seconds(), small, peak_resident()); time.sleep(0.3); print(process_seconds())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    early, small, large, late = map(float, done.stdout.split())
    assert 0 < early < process_seconds()
    assert late - early == pytest.approx(0.3, abs=0.2)
    assert 0 < small < 100_000_000
    assert large - small == pytest.approx(200_000_000, rel=0.1)
    assert peak_resident() > 0


def test_the_machine_is_named() -> None:
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["cores"] >= usable_cores() >= 1
    assert machine["memory_bytes"] > 2**28
