"""The model card says what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from demo.card import COLUMNS, TASKS, print_figures, write_card
from demo.tasks import SHARES

ROWS = (*SHARES, "all")


@pytest.fixture
def report() -> dict[str, Any]:
    """Numbers that are all different."""
    shares = iter(range(500, 1000, 7))
    return {
        "recipe": {"seed": 31, "steps": 1234, "conversations": 57, "lr": 0.0625, "warmup": 9},
        "parameters": 4_263_728,
        "minutes": 43.2,
        "torch": "2.99.0",
        "questions": 491,
        "accuracy": {column: {row: next(shares) / 1000 for row in ROWS} for column in COLUMNS},
        "equal_answers": 487,
        "differences": [],
    }


def write(report: dict[str, Any], folder: Path) -> str:
    write_card(report, folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_every_task_has_its_row_of_numbers(report: dict[str, Any], tmp_path: Path) -> None:
    text = write(report, tmp_path)
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    head, _, *rows = cells
    assert [row[0] for row in rows] == list(ROWS)
    assert len(head) == 2 + len(COLUMNS) == 5
    for name, example, *numbers in rows:
        assert example == TASKS.get(name, "")
        assert numbers == [f"{100 * report['accuracy'][column][name]:.1f}%" for column in COLUMNS]


def test_every_task_has_an_example() -> None:
    assert TASKS.keys() == SHARES.keys()
    assert all(TASKS.values())


@pytest.mark.parametrize(
    "said",
    [
        "4.3 million",
        "491 held-out",
        "to 487 of the 491",
        "1234 steps of 57",
        "seed 31",
        "43.2 minutes",
        "2.99.0",
        "0.0625",
    ],
)
def test_the_run_is_described(said: str, report: dict[str, Any], tmp_path: Path) -> None:
    assert said in " ".join(write(report, tmp_path).split())


def test_nothing_is_left_to_fill_in(report: dict[str, Any], tmp_path: Path) -> None:
    assert not re.search(r"[{}]", write(report, tmp_path))


def test_answers_that_differ_have_their_margins(report: dict[str, Any], tmp_path: Path) -> None:
    assert "None differs." in write(report, tmp_path)
    report["differences"] = [{"margin": 0.0123}, {"margin": 0.5}]
    text = write(report, tmp_path)
    assert "None differs." not in text
    assert "logits: 0.012, 0.500." in text


def test_the_hub_reads_its_head(report: dict[str, Any], tmp_path: Path) -> None:
    head = write(report, tmp_path).split("---\n")
    assert head[0] == ""
    fields = dict(line.split(": ") for line in head[1].splitlines())
    assert fields["license"] == "apache-2.0"
    assert fields["pipeline_tag"] == "text-generation"


def test_a_share_that_was_not_measured_is_no_card(report: dict[str, Any], tmp_path: Path) -> None:
    del report["accuracy"]["transformers"]["recall"]
    with pytest.raises(KeyError, match="recall"):
        write_card(report, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_printed_as_a_table(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report["differences"] = ["what differs"]
    print_figures(report)
    head, *rows, equal, difference = capsys.readouterr().out.splitlines()
    assert head.split() == ["task", *COLUMNS]
    assert [row.split() for row in rows] == [
        [row, *(f"{100 * report['accuracy'][column][row]:.1f}%" for column in COLUMNS)]
        for row in ROWS
    ]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert equal == "equal answers: 487 of 491"
    assert difference == "what differs"
