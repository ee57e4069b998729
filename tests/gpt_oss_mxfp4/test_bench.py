"""The bench verb: what is refused, what runs, the table, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpt_oss_mxfp4
from gpt_oss_mxfp4 import cli, physical_memory
from gpt_oss_mxfp4.bench import format_table
from gpt_oss_mxfp4.measurement import Report
from gpt_oss_mxfp4.options import BenchOptions, EngineOptions
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.test_measurement import REPORT

Call = tuple[list[list[int]], int]


class Engine(SimpleNamespace):
    """Stands in for MAX: remembers what it was asked, and generates token 7, 8, 9 ..."""

    loads: list[tuple[Any, ...]]
    calls: list[Call]

    def load(self, checkpoint: object, *arguments: Any) -> None:
        self.loads.append(arguments)

    def stream_batch(
        self, pipeline: object, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Iterator[list[int]]:
        self.calls.append(([list(prompt) for prompt in prompts], new_tokens))
        for i in range(new_tokens):
            yield [7 + i] * len(prompts)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine(loads=[], calls=[])
    monkeypatch.setattr(gpt_oss_mxfp4, "engine", fake, raising=False)
    return fake


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["bench", "--model", str(CHECKPOINT), *arguments])
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "argument --batch: must be at least 1, got 0"),
        (["--runs", "0"], "argument --runs: must be at least 1, got 0"),
        (["--new-tokens", "1"], "--new-tokens: must be at least 2, got 1"),
        (["--prompt-tokens", "15"], "at least one for each sequence of --batch 16, got 15"),
        (["--prompt-tokens", "131072"], "131072 + 64 tokens must fit the model's 131072"),
        (["--json", "nowhere/report"], "--json: nowhere/report cannot be written (No such file or"),
        (["--json", "."], "--json: . cannot be written (Is a directory)"),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line_and_exit_code_2(
    bench: Callable[..., tuple[int, str, str]],
    engine: Engine,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not engine.loads


def test_one_pipeline_runs_every_batch_in_turn(
    bench: Callable[..., tuple[int, str, str]], engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    options = ["--prompt-tokens", "48", "--new-tokens", "3", "--runs", "2", "--json", str(path)]
    code, out, _ = bench(*options, "--batch", "4", "1", "--activations", "float32")
    assert code == 0

    [(prompt_tokens, new_tokens, given, batch)] = engine.loads
    assert (prompt_tokens, new_tokens, batch, given.activations) == (48, 3, 4, "float32")
    shapes = [(len(prompts), len(prompts[0]), new) for prompts, new in engine.calls]
    assert shapes == [(1, 32, 1), *[(1, 48, 3), (4, 12, 3)] * 2]
    assert all(0 <= i < 384 for prompts, _ in engine.calls for prompt in prompts for i in prompt)

    report = Report.from_json(path.read_text())
    assert out == format_table(report)
    assert [(run.batch, run.prompt_tokens, run.new_tokens) for run in report.runs] == [
        (1, 48, 3),
        (4, 48, 12),
    ] * 2
    assert (report.sample.prompt, report.sample.generated) == (engine.calls[1][0][0], [7, 8, 9])
    assert report.subject.options.items() >= {("devices", "cpu"), ("activations", "float32")}
    assert report.subject.weight_bytes == sum(
        f.stat().st_size for f in CHECKPOINT.glob("*.safetensors")
    )
    assert report.subject.versions["max"] == "26.7.0"


def test_the_defaults_are_the_demo_model_and_three_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[BenchOptions] = []
    monkeypatch.setattr(cli.bench, "run_bench", asked.append)
    cli.main(["bench"])
    [options] = asked
    assert (options.model_name, options.batch) == ("the demo model", (1, 4, 16))
    assert (options.prompt_tokens, options.new_tokens, options.runs) == (512, 64, 3)


def test_the_table_has_medians_and_spread_of_each_batch() -> None:
    assert format_table(REPORT).splitlines() == [
        "an engine: a model, 2 threads, activations bfloat16",
        "a processor; max 26.7.0",
        "",
        "batch       prompt              prompt, tokens/s          generation, tokens/s",
        "            tokens         min   median      max         min   median      max",
        "    4      4 x 128       32.00    32.00    32.00       21.00    24.50    28.00",
        "",
        "start to first token: 8.8 s (8.5 s until loaded, 0.2 s from there, 32 tokens of prompt)",
        "peak resident memory: 5.00 GB (weights 4.00 GB)",
    ]


def test_batches_that_the_machine_has_no_memory_for_are_refused(
    bench: Callable[..., tuple[int, str, str]], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(physical_memory, "available_memory", lambda: 29 * 10**8)
    code, out, err = bench("--batch", "1", "16", "--prompt-tokens", "100000")
    assert (code, out) == (2, "")
    assert err == (
        "gpt-oss-mxfp4: --batch, --prompt-tokens, --new-tokens: 16 x 100064 tokens take 3.31 GB of memory for the KV "
        "cache and the rotations, of which this machine has 1.83 GB left; 875343 tokens fit\n"
    )
    assert not engine.loads
    assert bench("--batch", "8", "1", "--prompt-tokens", "100000", "--runs", "1")[0] == 0


def test_a_report_that_cannot_be_written_comes_after_the_table(
    bench: Callable[..., tuple[int, str, str]], engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / ("x" * 260)  # a folder that takes files, and not this one
    code, out, err = bench("--json", str(path))
    assert code == 2
    assert "peak resident memory" in out
    assert err.endswith(f"--json: {path} cannot be written (File name too long)\n")


def test_a_folder_that_takes_no_report_is_told_before_anything_is_measured(
    bench: Callable[..., tuple[int, str, str]], engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.symlink_to(tmp_path / "gone" / "report.json")
    code, out, err = bench("--json", str(path))
    assert (code, out) == (2, "")
    assert err == (f"gpt-oss-mxfp4: --json: {path} cannot be written (No such file or directory)\n")
    assert not engine.loads
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.slow
def test_a_batch_of_the_real_engine_gives_each_prompt_what_it_gets_alone(tmp_path: Path) -> None:
    from gpt_oss_mxfp4 import engine
    from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
    from gpt_oss_mxfp4.measurement import random_prompts

    options = EngineOptions(activations="float32")
    pipeline = engine.load(open_checkpoint(CHECKPOINT), 24, 8, options, 3)
    prompts = random_prompts(3, 24, 384)
    together = list(engine.stream_batch(pipeline, prompts, 8))
    alone = [[s[0] for s in engine.stream_batch(pipeline, [prompt], 8)] for prompt in prompts]
    assert [list(tokens) for tokens in zip(*together, strict=True)] == alone
    assert len(together) == 8
