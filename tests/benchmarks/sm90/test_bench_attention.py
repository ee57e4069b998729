"""Attention's benchmark as a whole, small, on the stand-in for the CUDA driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sm90 import bench_attention as script
from benchmarks.sm90 import card
from tests.cuda_driver.stand_in import StandIn
from tests.custom_ops.mxfp4.ptx import SM90_ATTENTION, emit


@pytest.fixture(autouse=True)
def ptx(monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel, of which few small launches are timed."""
    chosen = "\n// parts_1 2\n// parts_4 1\n// warps_1 16\n// warps_4 8\n"
    variants = {name: ptx + chosen for name, ptx in emit(SM90_ATTENTION).items()}
    monkeypatch.setattr(script, "emit", lambda _: variants)
    monkeypatch.setattr(card, "open_library", lambda: StandIn().library())
    monkeypatch.setattr(script, "CASES", ((1, 40), (4, 5)))
    monkeypatch.setattr(script, "PARTS", (1, 2))
    monkeypatch.setattr(script, "KV_HEADS", 1)
    monkeypatch.setattr(script, "GROUP", 2)
    monkeypatch.setattr(script, "PAGE", 16)
    monkeypatch.setattr(script, "LEAST_BYTES", 1)
    monkeypatch.setattr(card, "COPY_BYTES", 1024)
    return variants["attention_8"]


def test_every_number_of_parts_is_timed_and_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--rounds", "1", "--output", str(tmp_path / "report.json")]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["roofs"] == {"copy_GB_per_s": pytest.approx(2 * 1024 / 1e-3 / 1e9)}
    ways = [(parts, warps) for parts in (1, 2) for warps in (8, 16)]
    assert [(case["parts"], case["warps"]) for case in report["cases"]] == 2 * ways
    chosen = [case for case in report["cases"] if case["chosen"]]
    assert [(case["sequences"], case["parts"], case["warps"]) for case in chosen] == [
        (1, 2, 16),
        (4, 1, 8),
    ]
    for case in report["cases"]:
        assert case["us"] == pytest.approx([1000, 1000, 1000])
        read = 2 * 2 * case["sequences"] * case["tokens"] * 64
        assert case["GB_per_s"] == pytest.approx(read / 1e-3 / 1e9)
    assert "DIFFERS" not in capsys.readouterr().out


def test_what_is_not_written_is_told(
    monkeypatch: pytest.MonkeyPatch, ptx: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = "\n".join(line for line in ptx.splitlines() if "st.global" not in line)
    monkeypatch.setattr(script, "emit", lambda _: {"attention_8": changed})
    monkeypatch.setattr(script, "CASES", ((1, 3),))
    assert script.main(["--rounds", "1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_parts_that_are_not_joined_are_told(
    monkeypatch: pytest.MonkeyPatch, ptx: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block takes what it left itself for what the others did."""
    monkeypatch.setattr(script, "CASES", ((1, 40),))
    own = "mapa.shared::cluster.u32"
    lines = [
        f"mov.u32 {line.split()[1]} {line.split()[2].rstrip(',')};" if own in line else line
        for line in ptx.splitlines()
    ]
    changed = "\n".join(lines).replace("ld.shared::cluster", "ld.shared")
    monkeypatch.setattr(script, "emit", lambda _: {"attention_8": changed})
    assert script.main(["--rounds", "1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out
