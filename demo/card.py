"""The model card of the demo model, from what was measured."""

from pathlib import Path
from typing import Any

from demo.tasks import SHARES

ROWS = (*SHARES, "all")
COLUMNS = ("float", "transformers", "gpt_oss_mxfp4")

TASKS = {
    "add": "What is 4587 + 968?",
    "subtract": "Subtract 1704 from 96.",
    "reverse": 'Reverse the word "lantern".',
    "count": "How many s's are in possess?",
    "recall": "a fact stated more than 200 tokens before the question, possibly among others",
    "calculate": "a call to the calculator that the prompt offers, then the answer from its result",
    "chat": "facts to note, and products or quotients, which it declines without a calculator",
}
"""An example or a description of each task."""

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: gpt-oss-mxfp4
---

# A very small gpt-oss

This model has the architecture of OpenAI's gpt-oss: alternating sliding-window and full attention with sinks,
YaRN, a top-4 mixture of experts with clamped SwiGLU, and the harmony format. It has {parameters:.1f} million
parameters, with its experts in MXFP4. Its only purpose is to show that an engine for gpt-oss works: a wrong
kernel makes its answers wrong.

## What it does

The table gives the share of {questions} held-out questions for which every token of the final message is right,
with greedy decoding:

| task | example or description | float, in torch | MXFP4, in transformers | MXFP4, in gpt-oss-mxfp4 |
|---|---|---|---|---|
{rows}

The analysis spells out columns, letters and tallies, and the model reads the answer off it. Numbers have up to
four digits, words up to seven lower-case letters. The model has seen no other kind of question and no other
language. It also answers greetings, which are not measured, because training contains the same few.

transformers and gpt-oss-mxfp4 gave the same whole answer, analysis included, to {equal_answers} of the
{questions} questions. {differences}

## How it was trained

`scripts/train_demo.py` ran {steps} steps of {conversations} conversations each, drawn at random by `demo/tasks`
with seed {seed}, in {minutes} minutes on 2 CPU cores (torch {torch}). The matrices inside layers were trained
with Muon, the rest with AdamW, at a peak learning rate of {lr:g}. The forward pass always rounds the experts to
MXFP4, and gradients pass through the rounding. A tenth of all questions, chosen by a hash of what is asked, is
held out: no conversation of the training contains them. A program generates all training text; none of it was
written by others.

![Loss over the steps of training](loss.png)
"""


def write_card(report: dict[str, Any], folder: Path) -> None:
    """Writes README.md.

    Args:
        report: content of `accuracy.json`, complete.
        folder: of the checkpoint.
    """
    rows = [
        f"| {task} | {TASKS.get(task, '')} | " + " | ".join(_shares(report, task)) + " |"
        for task in ROWS
    ]
    recipe = report["recipe"]
    text = CARD.format(
        parameters=report["parameters"] / 1e6,
        questions=report["questions"],
        rows="\n".join(rows),
        equal_answers=report["equal_answers"],
        differences=_describe(report["differences"]),
        minutes=report["minutes"],
        torch=report["torch"],
        **{name: recipe[name] for name in ("steps", "conversations", "seed", "lr")},
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def print_figures(report: dict[str, Any]) -> None:
    """Prints shares of right answers, and what differs."""
    print(f"{'task':12}" + "".join(f"{column:>16}" for column in COLUMNS))
    for task in ROWS:
        print(f"{task:12}" + "".join(f"{share:>16}" for share in _shares(report, task)))
    print(f"equal answers: {report['equal_answers']} of {report['questions']}")
    for difference in report["differences"]:
        print(difference)


def _shares(report: dict[str, Any], task: str) -> list[str]:
    return [f"{report['accuracy'][column][task]:.1%}" for column in COLUMNS]


def _describe(differences: list[dict[str, Any]]) -> str:
    if not differences:
        return "None differs."
    margins = ", ".join(f"{difference['margin']:.3f}" for difference in differences)
    return f"Where answers first differ, transformers' two likeliest tokens are this close, in logits: {margins}."
