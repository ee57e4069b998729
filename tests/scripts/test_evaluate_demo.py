"""Evaluation as a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from demo.card import COLUMNS, ROWS
from gpt_oss_mxfp4.options import DEMO_MODEL
from scripts import evaluate_demo as script


@pytest.mark.parametrize(("arguments", "folder"), [([], DEMO_MODEL), (["a/b"], Path("a/b"))])
def test_the_packages_own_model_is_measured_unless_another_is_named(
    arguments: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Path] = []

    def evaluate(where: Path) -> dict[str, Any]:
        asked.append(where)
        shares = {column: dict.fromkeys(ROWS, 0.25) for column in COLUMNS}
        return {"accuracy": shares, "equal_answers": 7, "questions": 8, "differences": []}

    monkeypatch.setattr(script, "evaluate", evaluate)
    monkeypatch.setattr(sys, "argv", ["evaluate_demo.py", *arguments])
    assert script.main() == 0
    assert asked == [folder]
    assert "equal answers: 7 of 8" in capsys.readouterr().out
