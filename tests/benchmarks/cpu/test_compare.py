"""The comparison: what counts as the same model, the table, the processes, what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cpu import compare as script
from benchmarks.cpu.compare import Sameness, Side, format_table, judge, list_quantities
from gpt_oss_mxfp4.measurement import Report, Run, Sample
from gpt_oss_mxfp4.options import Refused
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.test_measurement import REPORT

SAMPLE = Sample(prompt=[5, 6, 7], generated=[1, 2, 3, 4])


def logits_for(tokens: list[int], gap: float = 0.0) -> np.ndarray:
    """Logits whose likeliest tokens after the prompt are these; ours lie `gap` of the range below."""
    logits = np.zeros((6, 10), np.float32)
    for row, (token, ours) in enumerate(zip(tokens, SAMPLE.generated, strict=True), start=2):
        logits[row, 0], logits[row, token] = -1, 1
        if token != ours:
            logits[row, ours] = 1 - 2 * gap
    return logits


def test_equal_tokens_are_the_same_model() -> None:
    sameness = judge(SAMPLE, logits_for([1, 2, 3, 4]))
    assert sameness == Sameness(tokens=4, same=4, largest_gap=0)
    assert sameness.holds


def test_a_near_tie_that_fell_otherwise_is_the_same_model() -> None:
    sameness = judge(SAMPLE, logits_for([1, 2, 3, 9], gap=0.05))
    assert sameness.same == 3
    assert sameness.largest_gap == pytest.approx(0.05)
    assert sameness.holds
    assert str(sameness) == (
        "3 of 4 of our likeliest tokens are the other side's too, the others at most 5.0% of the logits' range below it"
    )


@pytest.mark.parametrize(("tokens", "gap"), [([1, 2, 3, 9], 0.3), ([9, 8, 7, 4], 0.05)])
def test_another_token_or_too_many_ties_are_another_model(tokens: list[int], gap: float) -> None:
    assert not judge(SAMPLE, logits_for(tokens, gap)).holds


def test_nan_is_another_model() -> None:
    logits = logits_for([1, 2, 3, 4])
    logits[4] = np.nan
    assert not judge(SAMPLE, logits).holds


def faster(report: Report, factor: float) -> Report:
    """A report whose runs took less time."""
    runs = [
        replace(
            run,
            prompt_seconds=run.prompt_seconds / factor,
            generation_seconds=run.generation_seconds / factor,
        )
        for run in report.runs
    ]
    return replace(report, runs=tuple(runs), loaded_seconds=report.loaded_seconds / factor)


def test_ratios_are_of_the_same_round() -> None:
    """The second round is 3 times slower on both sides, and ours 2 and 4 times faster than theirs."""
    theirs = [REPORT, faster(REPORT, 1 / 3)]
    ours = [faster(theirs[0], 2), faster(theirs[1], 4)]
    lines = format_table(ours, theirs).splitlines()
    assert lines[0].split("  ")[0] == "median (range)"
    row = next(line for line in lines if line.startswith("prompt, batch 4"))
    assert row.split(", tokens/s")[1].split() == [
        "53.3",
        "(42.7-64.0)",
        "21.3",
        "(10.7-32.0)",
        "3.00",
        "(2.00-4.00)",
    ]


def test_every_batch_start_and_memory_are_compared() -> None:
    run = Run(batch=1, prompt_tokens=8, new_tokens=5, prompt_seconds=2, generation_seconds=4)
    report = replace(REPORT, runs=(run, *REPORT.runs))
    got = {quantity.name: quantity.of(report) for quantity in list_quantities([1, 4])}
    assert got == {
        "prompt, batch 1, tokens/s": 4,
        "generation, batch 1, tokens/s": 1,
        "prompt, batch 4, tokens/s": 32,
        "generation, batch 4, tokens/s": 24.5,
        "start until loaded, s": 8.5,
        "start to first token, s": 8.75,
        "peak resident memory, GB": 5,
    }


FAKE = """
import json, sys
from pathlib import Path
import numpy as np
from gpt_oss_mxfp4.measurement import Report
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, *args]) + "\\n")
if "--logits" in args:
    tokens = json.loads(Path(args[args.index("--tokens") + 1]).read_text())
    np.save(args[args.index("--logits") + 1], np.eye({vocabulary})[[*tokens[1:], {last}]])
else:
    Path(args[args.index("--json") + 1]).write_text(Path({report!r}).read_text())
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sides whose reports are given, and who write down what they are asked."""
    report = tmp_path / "report.json"
    report.write_text(replace(REPORT, sample=SAMPLE).to_json())
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")

    def make_sides(arguments: object, checkpoint: object) -> tuple[Side, Side]:
        sides = []
        for name in ("ours", "theirs"):
            code = FAKE.format(
                log=str(tmp_path / "log"),
                name=name,
                report=str(report),
                vocabulary=10,
                last=(tmp_path / "last").read_text(),
            )
            sides.append(Side([sys.executable, "-c", code], (weights,)))
        return sides[0], sides[1]

    monkeypatch.setattr(script, "make_sides", make_sides)
    (tmp_path / "last").write_text("4")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    return script.main()


def test_sides_are_checked_and_then_run_in_turn(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fakes / "result.json"
    options = ["--rounds", "2", "--batch", "1", "4", "--prompt-tokens", "99", "--json", str(result)]
    assert run(monkeypatch, str(CHECKPOINT), *options) == 0
    calls = [json.loads(line) for line in (fakes / "log").read_text().splitlines()]
    assert [call[0] for call in calls] == ["ours", "theirs", *["ours", "theirs"] * 2]
    assert calls[1][1] == "--tokens"
    for call in calls[2:]:
        assert call[1:7] == ["--prompt-tokens", "99", "--new-tokens", "64", "--batch", "1"]
        assert call[7:10] == ["4", "--runs", "1"]
    assert "4 of 4 of our likeliest" in capsys.readouterr().out
    written = json.loads(result.read_text())
    assert written["sameness"] == {"tokens": 4, "same": 4, "largest_gap": 0}
    assert len(written["rounds"]) == 2
    assert written["rounds"][1]["ours"].keys() >= {"others", "first_token_seconds", "runs"}
    assert Report.from_json(json.dumps(written["rounds"][0]["theirs"])).subject == REPORT.subject


def test_no_figures_where_the_models_differ(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (fakes / "last").write_text("8")
    assert run(monkeypatch, str(CHECKPOINT)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "both sides must compute the same, but 3 of 4" in err
    assert len((fakes / "log").read_text().splitlines()) == 2


def test_busy_neighbours_are_told(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = iter([0.9, 0.01, 0.02, 0.25, 0.0])  # the first is the check's
    monkeypatch.setattr(script, "others_share", lambda before, after: next(shares))
    assert run(monkeypatch, str(CHECKPOINT), "--rounds", "2") == 0
    assert capsys.readouterr().out.endswith(
        "disturbed: other processes took up to 25% of the machine during a run\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "must be a folder, is not"),
        ([str(CHECKPOINT)], "--twin: must name a GGUF file"),
        ([str(CHECKPOINT), "--threads", "4097"], "--threads: must be between 1 and"),
        ([str(CHECKPOINT), "--threads", "0"], "--threads: must be between 1 and"),
        ([str(CHECKPOINT), "--threads", "-1"], "--threads: must be between 1 and"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_side_that_fails_is_quoted(tmp_path: Path) -> None:
    side = Side([sys.executable, "-c", "raise SystemExit('no memory')"], ())
    with pytest.raises(Refused, match="must end with exit code 0, got 1: no memory"):
        script.run_side(side, [])
