"""The comparison with Triton's kernels, without them: what is skipped, refused, counted and printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.sm90 import triton_experts as script
from benchmarks.sm90.cases import GPT_OSS_20B, TOKENS, summarize
from benchmarks.sm90.triton_experts import Bench, format_lines, read_ours

ROOT = Path(__file__).resolve().parents[3]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["triton_experts.py", *arguments])
    return script.main()


def test_without_triton_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there = {"torch"}
    monkeypatch.setattr(script, "find_spec", lambda name: object() if name in there else None)
    # Neither is read or written: there is nothing to compare.
    options = ["--ours", str(tmp_path / "nowhere"), "--output", str(tmp_path / "result")]
    assert run(monkeypatch, *options) == 0
    assert capsys.readouterr().out == "skipped: this Python has no triton, no triton_kernels\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--runs", "many"], ["--tokens"], ["--layers", "3"]])
def test_other_arguments_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    for package in ("torch", "triton", "triton_kernels"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "benchmarks/sm90/triton_experts.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "triton_kernels must be as of Triton 3.5.1, this is another version:"
        " No module named 'triton_kernels.swiglu'"
    )


def make_record(**groups: float) -> dict[str, Any]:
    """A case of 4 tokens, in which groups take so many microseconds."""
    record: dict[str, Any] = {"tokens": 4, "wrong": {}}
    for group, us in groups.items():
        record[group] = {**summarize(4, [1e-6 * us]), "way": "way", "launches": "graph"}
    return record


def test_a_case_has_a_line_for_each_group_with_its_ratio_to_ours() -> None:
    record = make_record(dequantized=900, MXFP4=120)
    record["wrong"]["bfloat16, resident"] = float("nan")
    roofs = {"copy_GB_per_s": 3000.0, "matmul_TFLOP_per_s": 700.0}
    lines = list(format_lines(record, roofs, {4: 100.0, 16: 1.0}))
    assert lines[0] == "     4 bfloat16, resident: wrong by nan of the outputs, not timed"
    assert [line.split("%")[-1].split() for line in lines[1:]] == [
        ["1.20", "MXFP4:", "way,", "graph"],
        ["9.00", "dequantized:", "way,", "graph"],
    ]
    assert [line.split()[-3:] for line in format_lines(record, None, {})][1:] == [
        ["MXFP4:", "way,", "graph"],
        ["dequantized:", "way,", "graph"],
    ]


def test_ours_is_read_as_bench_experts_writes_it(tmp_path: Path) -> None:
    roofs = {"copy_GB_per_s": 3000.0, "matmul_TFLOP_per_s": 700.0}
    report = {"roofs": roofs, "cases": [summarize(tokens, [1e-4]) for tokens in TOKENS[:2]]}
    path = tmp_path / "experts.json"
    path.write_text(json.dumps(report))
    got, medians = read_ours(path)
    assert got == roofs
    assert medians == pytest.approx({1: 100, 4: 100})


def test_the_fastest_right_way_of_a_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer is here a pair: its error, and the seconds it takes."""
    ran = []
    monkeypatch.setattr(script, "find_error", lambda case, layer, want: layer[0])
    monkeypatch.setattr(script, "run_layers", lambda case, layers: ran.append(layers))

    def time_layers(launch: Callable[[], None], runs: int) -> tuple[str, list[float]]:
        launch()
        return "graph", [ran[-1][0][1]] * runs

    monkeypatch.setattr(script, "time_layers", time_layers)
    bench = SimpleNamespace(
        make_case=lambda tokens: SimpleNamespace(compute_reference=lambda up, down: None),
        first=(None, None),
        sizes=GPT_OSS_20B,
        groups={
            "MXFP4": {"slow": [(3e-3, 40e-3)], "fast": [(3e-3, 2e-3)], "wrong": [(1.4, 1e-3)]},
            "bfloat16": {"resident": [(float("nan"), 1e-3)]},
        },
    )
    record = Bench.measure(bench, 4, 3)  # type: ignore[arg-type]
    assert record["wrong"].keys() == {"MXFP4, wrong", "bfloat16, resident"}
    assert "bfloat16" not in record
    assert record["MXFP4"]["way"] == "fast"
    assert record["MXFP4"]["ways_us"] == {"slow": pytest.approx(2000), "fast": pytest.approx(100)}
    assert len(ran) == 2
