"""Pictures: what is read from the files, which roofs, which labels; and that they are drawn, the same each time."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu import plot as script
from benchmarks.cpu.plot import Op, Spread, WrongFile, cluster, read_group, read_ops
from tests.gpt_oss_mxfp4.test_measurement import REPORT

READ_BOUND = Op(
    name="experts, 1 token", flop_per_byte=3.75, gflops=270, gbs=72, roof_gbs=80, peak_gflops=700
)
MULTIPLY_BOUND = replace(READ_BOUND, name="experts, 512 tokens", flop_per_byte=240, gflops=560)


@pytest.fixture
def ops(tmp_path: Path) -> Path:
    path = tmp_path / "ops.json"
    path.write_text(json.dumps([{**asdict(op), "more": 1} for op in (READ_BOUND, MULTIPLY_BOUND)]))
    return path


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Two rounds; ours is 2 and then 4 times faster at the prompt, and equal at generation."""
    rounds = []
    for factor in (2, 4):
        runs = tuple(
            replace(run, prompt_seconds=run.prompt_seconds / factor) for run in REPORT.runs
        )
        ours, theirs = replace(REPORT, runs=runs), REPORT
        rounds.append({"ours": json.loads(ours.to_json()), "theirs": json.loads(theirs.to_json())})
    found = {
        "model": "a model",
        "against": "llama.cpp",
        "dense": "bf16",
        "threads": 2,
        "theirs_options": "",
        "ours_options": "--activations int8 --dense-weights int8",
        "rounds": rounds,
    }
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(found))
    return path


def test_a_share_is_of_the_lower_roof(ops: Path) -> None:
    assert [op.share for op in read_ops(ops)] == [0.9, 0.8]


def test_peaks_of_one_instruction_are_one_roof() -> None:
    assert cluster([700, 360, 720, 350]) == [Spread(355, 350, 360), Spread(710, 700, 720)]


def test_a_comparison_becomes_medians_ranges_and_paired_ratios(comparison: Path) -> None:
    group = read_group(comparison)
    assert group.label == (
        "activations int8\ndense-weights int8\nllama.cpp: bf16 dense\nprompt of 512"
    )
    assert group.machine == "a model on a processor, 2 threads"
    assert group.ours == (Spread(96, 64, 128), Spread(24.5, 24.5, 24.5))
    assert group.theirs == (Spread(32, 32, 32), Spread(24.5, 24.5, 24.5))
    assert group.ratios == (Spread(3, 2, 4), Spread(1, 1, 1))


@pytest.mark.parametrize("text", ["[{}]", "{}", "[1]", "no JSON"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(WrongFile, match=r"must be what compare\.py --json writes"):
        read_group(path)
    if text != "{}":  # an empty object reads as an empty list
        with pytest.raises(WrongFile, match="must be a list of objects with name, flop_per_byte"):
            read_ops(path)


def draw(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, arguments)])
    return script.main()


def test_pictures_are_drawn_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ops: Path, comparison: Path
) -> None:
    pytest.importorskip("matplotlib", reason="a part of the train and bench extras")
    for kind, before, after in (("roofline", [ops], []), ("bars", [], [comparison])):
        pictures = [tmp_path / folder / f"{kind}.svg" for folder in ("", "again")]
        pictures[1].parent.mkdir(exist_ok=True)
        for picture in pictures:
            assert draw(monkeypatch, kind, *before, picture, *after) == 0
        first, second = [picture.read_text() for picture in pictures]
        assert first == second
        assert first.startswith("<?xml")


def test_a_roofline_names_every_op_and_roof() -> None:
    pytest.importorskip("matplotlib", reason="a part of the train and bench extras")
    figure = script.draw_roofline([READ_BOUND, MULTIPLY_BOUND], "a machine")
    [axes] = figure.axes
    assert axes.get_title() == "a machine\nread: 80 GB/s (80-80 during the run)"
    assert {text.get_text() for text in axes.texts} == {"1", "2", "multiply: 700 GFLOP/s"}
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "1  experts, 1 token: 90% of its roof",
        "2  experts, 512 tokens: 80% of its roof",
    ]


def test_what_cannot_be_drawn_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert draw(monkeypatch, "bars", tmp_path / "a.svg", tmp_path / "nowhere.json") == 2
    err = capsys.readouterr().err
    assert err.startswith("plot: ")
    assert err.count("\n") == 1
