"""The kernels' benchmark as a whole, small, on the stand-in for the CUDA driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sm90 import bench_kernels as script
from benchmarks.sm90 import card
from tests.cuda_driver.driver import CudaError, Driver
from tests.cuda_driver.stand_in import StandIn
from tests.custom_ops.mxfp4.ptx import SM90, SM90_CUTS, SM90_MLP, emit
from tests.custom_ops.mxfp4.sm90.test_grouped_matmul import swap_registers


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two configurations of two small matmuls of one small model, and cuts that are the same again."""
    configs = {
        name + gated: f"// chosen_from_1 {rows}\n{emit(SM90)[name + gated]}"
        for name, rows in {"decode_8": 1, "decode_16": 3}.items()
        for gated in ("", "_gated")
    }
    mlps = emit(SM90_MLP)
    cuts = {
        "mlp_again": mlps["mlp_16"],
        "mlp_narrow": mlps["mlp_8"],
        **{f"again{gated}": emit(SM90)[f"decode_16{gated}"] for gated in ("", "_gated")},
    }
    cuts = {name: f"// cut 1\n{ptx}" for name, ptx in cuts.items()}
    monkeypatch.setattr(card, "open_library", lambda: StandIn().library())
    programs = {SM90: configs, SM90_MLP: mlps, SM90_CUTS: cuts}
    monkeypatch.setattr(script, "emit", programs.__getitem__)
    monkeypatch.setattr(script, "EXPERTS", {"small": 1})
    monkeypatch.setattr(script, "TOKENS", {"small": (3,)})
    monkeypatch.setattr(script, "POOL", 2)
    monkeypatch.setattr(script, "TOP_K", 1)
    monkeypatch.setattr(script, "ROUTINGS", 2)
    monkeypatch.setattr(script, "REPEATS", 1)
    monkeypatch.setattr(card, "COPY_BYTES", 1024)
    matmuls = script.Matmul("gate_up", 128, 64, True), script.Matmul("down", 64, 64, False)
    monkeypatch.setattr(script, "MATMULS", matmuls)
    return configs


@pytest.mark.usefixtures("configs")
def test_every_configuration_is_timed_and_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--rounds", "1", "--output", str(tmp_path / "report.json")]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["roofs"] == {"copy_GB_per_s": pytest.approx(2 * 1024 / 1e-3 / 1e9)}
    assert [case["config"] for case in report["cases"]] == 2 * ["decode_8", "decode_16"]
    # Three rows; all launches take a millisecond.
    assert [case["chosen"] for case in report["cases"]] == 2 * [False, True]
    for case in report["cases"]:
        weights = 64 * (128 if case["matmul"] == "gate_up" else 64)
        assert case["us"] == pytest.approx([1000, 1000, 1000])
        assert case["GB_per_s"] == pytest.approx(weights * 17 / 32 / 1e-3 / 1e9)
        assert case["TFLOP_per_s"] == pytest.approx(2 * 3 * weights / 1e-3 / 1e12)
    launches = {"in turn": 2, "overlapping decode_16": 2, "one kernel mlp_16": 1}
    assert [layer["way"] for layer in report["layers"]] == list(launches)
    for layer in report["layers"]:
        milliseconds = launches[layer["way"]]
        assert layer["us"] == pytest.approx(3 * [1000 * milliseconds])
        assert layer["GB_per_s"] == pytest.approx(64 * 192 * 17 / 32 / milliseconds / 1e6)
        assert layer["right"]
        assert layer["difference"] == 0
    assert "DIFFERS" not in capsys.readouterr().out


@pytest.mark.usefixtures("configs")
def test_cuts_are_timed_beside_what_is_chosen_of_as_many_rows(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    assert script.main(["--rounds", "1", "--cuts", "--output", str(output)]) == 0
    report: dict[str, Any] = json.loads(output.read_text())
    assert [case["config"] for case in report["cases"]] == 2 * ["decode_8", "decode_16", "again"]
    assert [case["chosen"] for case in report["cases"]] == 2 * [False, True, False]
    assert [layer["way"] for layer in report["layers"]] == [
        "in turn",
        "overlapping decode_16",
        "overlapping again",
        "one kernel mlp_16",
        "one kernel mlp_again",
    ]


def test_rounds_begin_with_another_work_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "COPY_BYTES", 1024)
    timed: list[str] = []

    def work(name: str, launches: int) -> card.Work:
        return card.Work(name, [lambda: timed.append(name)] * launches)

    works = [work("a", 1), work("b", 2), work("c", 1)]
    times = card.Card(Driver(StandIn().library()), rounds=3).seconds(works)
    assert "".join(timed) == "abbc" + "bbca" + "cabb"
    assert times == 3 * [[0, 0, 0]]  # only copies take time there


def test_a_configuration_that_gives_something_else_is_told(
    configs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    configs["decode_16"] = swap_registers(configs["decode_16"])
    assert script.main(["--rounds", "1"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small")]
    assert [line.endswith("DIFFERS") for line in lines] == [
        False,
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_no_driver_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_library() -> None:
        raise CudaError("no NVIDIA driver on this machine")

    monkeypatch.setattr(card, "open_library", open_library)
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith("error: no NVIDIA driver on this machine\n")
