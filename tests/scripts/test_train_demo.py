"""Training as a command: a whole folder or none, and never over another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from demo import export, torch_decoder  # noqa: E402  (all need the above)
from demo.card import COLUMNS  # noqa: E402
from demo.questions import held_out_questions  # noqa: E402
from demo.training import Recipe, Step  # noqa: E402
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint  # noqa: E402
from scripts import train_demo as script  # noqa: E402
from tests.demo.tiny import tiny_config  # noqa: E402
from tests.reference.mxfp4 import quantize  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class TinyRecipe(Recipe):
    """Over in a moment."""

    steps: int = 3
    conversations: int = 2
    warmup: int = 1


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script with a small model, few questions and short answers; MAX is not needed."""
    monkeypatch.setattr(script, "Recipe", TinyRecipe)
    monkeypatch.setattr(script, "make_config", tiny_config)
    monkeypatch.setattr(script, "standard_questions", lambda: held_out_questions(9, seed=1))
    monkeypatch.setattr(torch_decoder, "MAX_ANSWER_TOKENS", 3)
    monkeypatch.setattr(export, "quantize_array", quantize)
    monkeypatch.setattr(script, "evaluate", evaluate)


def evaluate(folder: Path) -> dict[str, Any]:
    """Stands for MAX's and transformers' answers to the questions; the folder is whole by then."""
    open_checkpoint(folder)
    report: dict[str, Any] = json.loads((folder / "accuracy.json").read_text())
    shares = report["accuracy"]["float"]
    return report | {
        "accuracy": dict.fromkeys(COLUMNS, shares),
        "equal_answers": report["questions"],
        "differences": [],
    }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["train_demo.py", *map(str, arguments)])
    return script.main()


@pytest.mark.usefixtures("tiny")
def test_a_run_leaves_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "demo"
    assert run(monkeypatch, "--output", output, "--steps", "4", "--seed", "5") == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["demo"]
    assert sorted(path.name for path in output.iterdir()) == [
        "accuracy.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "loss.json",
        "loss.png",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    open_checkpoint(output)
    report = json.loads((output / "accuracy.json").read_text())
    assert report["recipe"] == {
        **{"seed": 5, "steps": 4, "conversations": 2, "lr": Recipe.lr, "warmup": 1},
        **{"weight_decay": Recipe.weight_decay, "betas": list(Recipe.betas), "max_tokens": 2048},
    }
    assert report["questions"] == 9
    assert report["torch"] == torch.__version__
    assert report["parameters"] == sum(
        np.prod(entry.shape) * (2 if name.endswith("_blocks") else 1)
        for name, entry in open_checkpoint(output).entries.items()
        if not name.endswith("_scales")
    )
    assert report["accuracy"]["float"]["all"] == 0.0  # after four steps, in three tokens
    (mean,) = json.loads((output / "loss.json").read_text())
    assert mean["number"] == 4
    assert 0 < mean["loss"] < 7
    assert "equal answers: 9 of 9" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file"])
def test_what_exists_is_refused_and_left_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("must not begin")

    monkeypatch.setattr(script, "make_tokenizer", fail)
    output = tmp_path / "demo"
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        if kind == "folder":
            (output / "config.json").write_text("mine")
    before = sorted((path, path.is_dir() or path.read_text()) for path in tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, "--output", output)
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    usage, error = said.err.splitlines()
    assert usage.startswith("usage: ")
    assert error == (
        f"train_demo.py: error: --output: {output} exists already; remove it or name another folder"
    )
    assert (
        sorted((path, path.is_dir() or path.read_text()) for path in tmp_path.rglob("*")) == before
    )


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("steps", ["0", "1"])
def test_steps_that_are_all_warm_up_are_refused(
    steps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, "--output", tmp_path / "new" / "demo", "--steps", steps)
    assert exit_.value.code == 2
    error = f"--steps: must be more than the warm-up's 1, got {steps}"
    assert capsys.readouterr().err.endswith(f"error: {error}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tiny")
def test_a_checkpoint_is_kept_where_measuring_it_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "evaluate", break_off)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--output", tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    open_checkpoint(tmp_path / "demo")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("step", ["judge", "export", "draw_loss_curve"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_breaks_off_leaves_nothing(
    step: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*arguments: Any) -> None:
        if step == "export":  # with half of it written
            arguments[2].mkdir()
            (arguments[2] / "config.json").write_text("{")
        raise error("broken off")

    def train(*_: Any) -> Iterator[Step]:
        yield Step(1, 1.0, 0.5)

    monkeypatch.setattr(script, "train", train)
    monkeypatch.setattr(script, step, break_off)
    if step != "judge":
        monkeypatch.setattr(script, "judge", lambda *_: [])
    monkeypatch.setattr(script, "accuracy", lambda _: {"all": 0.0})
    with pytest.raises(error, match="broken off"):
        run(monkeypatch, "--output", tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tiny")
def test_training_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any) -> Iterator[Step]:
        yield Step(1, 1.0, 0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--output", tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []
