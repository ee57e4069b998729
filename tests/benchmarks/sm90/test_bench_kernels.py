"""The kernels' benchmark as a whole, small, on the stand-in for the CUDA driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sm90 import bench_kernels as script
from tests.cuda_driver.driver import CudaError
from tests.cuda_driver.stand_in import StandIn
from tests.custom_ops.mxfp4.ptx import SM90, emit
from tests.custom_ops.mxfp4.sm90.test_grouped_matmul import swap_registers


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two configurations of one small matmul of one small model."""
    configs = {
        name: f"// chosen_from_1 {rows}\n{emit(SM90)[name]}"
        for name, rows in {"decode_8": 1, "decode_16": 3}.items()
    }
    monkeypatch.setattr(script, "open_library", lambda: StandIn().library())
    monkeypatch.setattr(script, "emit", lambda _: configs)
    monkeypatch.setattr(script, "EXPERTS", {"small": 1})
    monkeypatch.setattr(script, "TOKENS", {"small": (3,)})
    monkeypatch.setattr(script, "POOL", 2)
    monkeypatch.setattr(script, "TOP_K", 1)
    monkeypatch.setattr(script, "ROUTINGS", 2)
    monkeypatch.setattr(script, "REPEATS", 1)
    monkeypatch.setattr(script, "COPY_BYTES", 1024)
    monkeypatch.setattr(script, "MATMULS", (script.Matmul("down", 64, 64, False),))
    return configs


@pytest.mark.usefixtures("configs")
def test_every_configuration_is_timed_and_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--rounds", "1", "--output", str(tmp_path / "report.json")]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["roofs"] == {"copy_GB_per_s": pytest.approx(2 * 1024 / 1e-3 / 1e9)}
    assert [case["config"] for case in report["cases"]] == ["decode_8", "decode_16"]
    # Three rows; all launches take a millisecond.
    assert [case["chosen"] for case in report["cases"]] == [False, True]
    for case in report["cases"]:
        assert case["us"] == pytest.approx([1000, 1000, 1000])
        assert case["GB_per_s"] == pytest.approx(64 * 64 * 17 / 32 / 1e-3 / 1e9)
        assert case["TFLOP_per_s"] == pytest.approx(2 * 3 * 64 * 64 / 1e-3 / 1e12)
    assert "DIFFERS" not in capsys.readouterr().out


def test_a_configuration_that_gives_something_else_is_told(
    configs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    configs["decode_16"] = swap_registers(configs["decode_16"])
    assert script.main(["--rounds", "1"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small")]
    assert [line.endswith("DIFFERS") for line in lines] == [False, True]


def test_no_driver_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_library() -> None:
        raise CudaError("no NVIDIA driver on this machine")

    monkeypatch.setattr(script, "open_library", open_library)
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith("error: no NVIDIA driver on this machine\n")
