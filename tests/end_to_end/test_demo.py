"""The demo model answers held-out questions: through the engine and the command (the server: tests/serving).

Its right answers are what a broken kernel would lose, and one wrong byte of one expert's scales shows that
they would be lost.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from demo.max_decoder import decode_in_max
from demo.questions import Question, accuracy, held_out_questions, judge
from demo.tasks import TASKS
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import DEMO_MODEL

QUESTIONS = held_out_questions(84, seed=2)
"""Twelve of each task, others than those that the model card counts."""

LEAST_ACCURACY = 0.95
ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""


def ask(folder: Path, questions: list[Question]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    judged = judge(tokenizer, questions, lambda prompts: decode_in_max(folder, prompts))
    shares = accuracy(judged)
    print(shares)
    return shares["all"]


def test_the_shipped_model_is_right_as_promised() -> None:
    """What was measured with all 500 questions, which takes minutes: `scripts/evaluate_demo.py` does it again."""
    report = json.loads((DEMO_MODEL / "accuracy.json").read_text())
    assert report["questions"] == 500
    assert report["equal_answers"] >= 499
    shares = report["accuracy"]["gpt_oss_mxfp4"]
    assert shares.keys() == {*TASKS, "all"}
    assert min(shares.values()) >= LEAST_ACCURACY


@pytest.mark.slow
def test_held_out_questions_are_answered_right() -> None:
    assert ask(DEMO_MODEL, QUESTIONS) >= LEAST_ACCURACY


@pytest.mark.slow
def test_one_wrong_scale_byte_costs_answers(tmp_path: Path) -> None:
    """32 weights of one row of one expert are 2^16 times what they should be."""
    folder = tmp_path / "wrong_scale"
    shutil.copytree(DEMO_MODEL, folder)
    [file] = folder.glob("*.safetensors")
    place = scale_offset(file, "model.layers.1.mlp.experts.down_proj_scales")
    content = bytearray(file.read_bytes())
    content[place] += 16
    file.write_bytes(content)
    assert ask(folder, QUESTIONS) < LEAST_ACCURACY / 2


def scale_offset(file: Path, name: str) -> int:
    """Where the first scale byte of a tensor lies in its file."""
    content = file.read_bytes()
    header_size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + header_size])
    offset: int = header[name]["data_offsets"][0]
    return 8 + header_size + offset


def generate(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", "generate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_answers_without_a_model_named() -> None:
    assert generate("--prompt", "What is 4587 + 968?") == "5555\n"


def test_command_shows_the_reasoning_when_asked() -> None:
    text = generate("--prompt", 'Reverse the word "lantern".', "--show-reasoning")
    assert "n7 r6 e5 t4 n3 a2 l1" in text
    assert text.endswith("\nnretnal\n")


def test_demo_model_fits_the_package() -> None:
    assert sum(file.stat().st_size for file in DEMO_MODEL.rglob("*")) <= 6_000_000
    config = open_checkpoint(DEMO_MODEL).config
    assert config.hidden_size % 128 == config.intermediate_size % 128 == 0
    assert (config.head_dim, config.sliding_window) == (64, 128)
