"""The benchmark of dense products as a whole, small, on the stand-in for the CUDA driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sm90 import bench_dense as script
from benchmarks.sm90 import card
from tests.cuda_driver.stand_in import StandIn
from tests.custom_ops.mxfp4.ptx import SM90_DENSE, emit


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few small launches."""
    monkeypatch.setattr(card, "open_library", lambda: StandIn().library())
    monkeypatch.setattr(script, "MATMULS", {"one": (40, 64), "few": (24, 64)})
    monkeypatch.setattr(script, "TOKENS", (2, 9))
    monkeypatch.setattr(script, "MAX_SETS", 2)
    monkeypatch.setattr(card, "COPY_BYTES", 1024)


def test_each_way_to_launch_is_timed_and_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--rounds", "1", "--output", str(tmp_path / "report.json")]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["roofs"] == {"copy_GB_per_s": pytest.approx(2 * 1024 / 1e-3 / 1e9)}
    names = "outputs", "tokens", "overlapping"
    assert [tuple(case[name] for name in names) for case in report["cases"]] == [
        *((40, 2, False), (40, 2, True), (40, 9, False), (40, 9, True)),
        *((24, 2, False), (24, 2, True), (24, 9, False), (24, 9, True)),
    ]
    for case in report["cases"]:
        assert case["us"] == pytest.approx([1000, 1000, 1000])
        assert case["GB_per_s"] == pytest.approx(2 * case["outputs"] * 64 / 1e-3 / 1e9)
    assert "DIFFERS" not in capsys.readouterr().out


def test_what_is_not_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {
        name: "\n".join(line for line in ptx.splitlines() if "st.global" not in line)
        for name, ptx in emit(SM90_DENSE).items()
    }
    monkeypatch.setattr(script, "emit", lambda _: changed)
    assert script.main(["--rounds", "1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_the_kernel_is_the_one_that_the_op_launches() -> None:
    chosen = [script.choose_name(outputs, 9, 132) for outputs in (32, 128, 1056, 1057)]
    assert chosen == ["few_16", "few_16", "few_16", "dense_16"]
