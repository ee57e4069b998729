"""Evaluation: both decoders are asked the same, and the folder gets report and card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from demo import evaluation as module  # noqa: E402  (all need both)
from demo import export, torch_decoder  # noqa: E402
from demo.architecture import remove_rounding  # noqa: E402
from demo.card import COLUMNS  # noqa: E402
from demo.questions import accuracy, encode_answer, held_out_questions, judge  # noqa: E402
from tests.demo.tiny import random_model  # noqa: E402
from tests.reference.mxfp4 import quantize  # noqa: E402

QUESTIONS = held_out_questions(16, seed=1)
CHANGED = 3
"""The question to which the second decoder gives another answer."""


@pytest.fixture
def folder(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the training leaves it, but of a random model; MAX is not needed."""
    monkeypatch.setattr(export, "quantize_array", quantize)
    monkeypatch.setattr(torch_decoder, "MAX_ANSWER_TOKENS", 4)
    monkeypatch.setattr(module, "standard_questions", lambda: QUESTIONS)
    model = random_model(tokenizer)
    remove_rounding(model, keep_rounded=False)
    export.export(model, tokenizer, tmp_path)
    nothing = judge(tokenizer, QUESTIONS, lambda prompts: [[]] * len(prompts))
    report = {
        "recipe": {"seed": 0, "steps": 1, "conversations": 2, "lr": 0.125},
        "parameters": 1,
        "minutes": 1.0,
        "torch": torch.__version__,
        "questions": len(QUESTIONS),
        "accuracy": {"float": accuracy(nothing)},
    }
    (tmp_path / "accuracy.json").write_text(json.dumps(report))
    return tmp_path


def test_report_and_card_hold_what_was_measured(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = module.load_in_transformers(folder)
    said: list[list[int]] = []

    def decode(where: Path, prompts: list[list[int]]) -> Iterator[list[int]]:
        """As transformers, but for one answer."""
        assert where == folder
        for i, answer in enumerate(torch_decoder.decode_in_torch(model)(prompts)):
            said.append([*answer[:-1], (answer[-1] + 1) % 500] if i == CHANGED else answer)
            yield said[-1]

    monkeypatch.setattr(module, "decode_in_max", decode)
    report = module.evaluate(folder)

    assert json.loads((folder / "accuracy.json").read_text()) == report
    assert report["accuracy"].keys() == set(COLUMNS)
    assert report["equal_answers"] == len(QUESTIONS) - 1
    (difference,) = report["differences"]
    assert difference["task"] == QUESTIONS[CHANGED].task
    assert difference["other"] == tokenizer.decode(said[CHANGED])
    assert difference["token"] == len(said[CHANGED]) - 1
    assert difference["rank"] > 1
    assert difference["margin"] > 0
    assert report["transformers"] == transformers.__version__
    assert report["recipe"]["lr"] == 0.125
    assert f"{difference['margin']:.3f}" in (folder / "README.md").read_text()


def test_each_column_is_its_own_decoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [
        encode_answer(transformers.AutoTokenizer.from_pretrained(folder), q) for q in QUESTIONS
    ]
    monkeypatch.setattr(module, "decode_in_max", lambda folder, prompts: right)
    report = module.evaluate(folder)
    shares = [report["accuracy"][column]["all"] for column in COLUMNS]
    assert shares == [0.0, 0.0, 1.0]
    assert report["equal_answers"] == 0


def test_transformers_computes_in_float32(folder: Path) -> None:
    model = module.load_in_transformers(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "eager"
    assert not model.training
