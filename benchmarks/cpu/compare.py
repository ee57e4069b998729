"""Measure this package side by side with llama.cpp, or with Hugging Face transformers, on the same weights.

    ./run python benchmarks/cpu/compare.py FOLDER --against llama.cpp --twin FILE.gguf [--dense bf16|q8_0]
        [--threads N] [--rounds N] [--batch N ...] [--prompt-tokens N] [--new-tokens N]
        [--ours "..."] [--theirs "..."] [--json FILE]
    ./run python benchmarks/cpu/compare.py FOLDER --against transformers

The twin is written where it is not there yet. First it is checked that both compute the same: each of our likeliest
tokens must be the other side's too, or nearly so in its logits; there are no figures otherwise. Then both run in turn,
each time in a process of its own which loads the model, warms up, and measures. Before each, the files of the other
side are dropped from the page cache and its own are read once, so that no disk is measured: both together may not fit
the memory. What other processes took of the machine meanwhile is told where it is much. `--threads` keeps either side,
and everything it starts, on so many cores.

llama.cpp rounds activations to 8 bits, always. `--ours` and `--theirs` are handed on to `gpt-oss-mxfp4 bench` and to
the other side's script: `--ours "--activations float32"`, `--theirs "--no-repack"`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu.gguf_twin import DENSE, NoTwin, write_twin
from benchmarks.cpu.neighbours import others_share, read_processors, wait_until_idle
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.measurement import Report, Sample, format_json, usable_cores
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.threads import limit_threads

HERE = Path(__file__).resolve().parent

CHECK_PROMPT_TOKENS, CHECK_NEW_TOKENS = 64, 32
"""What the sameness is judged by."""

MAX_GAP = 0.1
"""How far, as a share of the range of a position's logits, our likeliest token may lie below the other side's. 8-bit
activations move logits of a small model by up to 0.13 where two experts are nearly tied, 0.002 on average; with the
nibbles of a block in the wrong order half of all tokens lie 0.26 or more below, and 8% are the same (NOTES N30)."""

MIN_SAME = 0.5
"""Share of our tokens that must be the other side's likeliest: random weights have many near ties."""

READ_BYTES = 2**24

DISTURBED = 0.05
"""Share of the machine from which other processes are mentioned: both sides wait for their slowest thread."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Args:
        command: starts it; measuring and logits are asked for by further arguments.
        files: what it reads its weights from.
    """

    command: list[str]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Sameness:
    """How our tokens stand in the other side's logits.

    Args:
        tokens: how many were compared.
        same: how many are the other side's likeliest.
        largest_gap: of the others, how far one lies below the likeliest, as a share of the logits' range.
    """

    tokens: int
    same: int
    largest_gap: float

    @property
    def holds(self) -> bool:
        """Whether both sides compute the same."""
        return self.largest_gap <= MAX_GAP and self.same >= MIN_SAME * self.tokens

    def __str__(self) -> str:
        """Says it in words."""
        said = f"{self.same} of {self.tokens} of our likeliest tokens are the other side's too"
        if self.same == self.tokens:
            return said
        return f"{said}, the others at most {self.largest_gap:.1%} of the logits' range below it"


@dataclass(frozen=True)
class Quantity:
    """What is compared of two reports.

    Args:
        name: with its unit.
        of: gets it from a report.
    """

    name: str
    of: Callable[[Report], float]


def judge(sample: Sample, logits: NDArray[np.float32]) -> Sameness:
    """Finds our tokens in the other side's logits.

    Args:
        sample: our prompt, and what we continued it by.
        logits: [tokens, vocabulary] of the other side, at the prompt and all new tokens but the last.
    """
    rows = logits[len(sample.prompt) - 1 :]
    best = rows.max(axis=-1)
    ours = rows[np.arange(len(rows)), sample.generated]
    gaps = (best - ours) / (best - rows.min(axis=-1))
    # A NaN is larger than every bound, not smaller.
    largest = float(np.nan_to_num(gaps, nan=np.inf).max())
    return Sameness(len(rows), int((gaps == 0).sum()), largest)


def list_quantities(batches: Sequence[int]) -> list[Quantity]:
    """Everything that is compared.

    Args:
        batches: that were run.
    """

    def rate(batch: int, name: str) -> Callable[[Report], float]:
        def median(report: Report) -> float:
            return statistics.median(getattr(r, name) for r in report.runs if r.batch == batch)

        return median

    quantities = []
    for batch in batches:
        quantities += [
            Quantity(f"prompt, batch {batch}, tokens/s", rate(batch, "prompt_rate")),
            Quantity(f"generation, batch {batch}, tokens/s", rate(batch, "generation_rate")),
        ]
    return [
        *quantities,
        Quantity("start until loaded, s", lambda report: report.loaded_seconds),
        Quantity("start to first token, s", lambda report: report.first_token_seconds),
        Quantity("peak resident memory, GB", lambda report: report.peak_resident / 1e9),
    ]


def format_table(ours: Sequence[Report], theirs: Sequence[Report]) -> str:
    """Lays out medians, ranges, and ratios of runs that followed one another.

    Args:
        ours: a report of each round.
        theirs: of the same rounds.

    Returns:
        Lines of text.
    """
    width = 26
    heads = (ours[0].subject.engine, theirs[0].subject.engine, "ours / theirs")
    lines = [f"{'median (range)':31}" + "".join(f"{head:>{width}}" for head in heads)]
    for quantity in list_quantities(sorted({run.batch for run in ours[0].runs})):
        left, right = [[quantity.of(report) for report in side] for side in (ours, theirs)]
        ratios = [a / b for a, b in zip(left, right, strict=True)]
        cells = "".join(f"{_spread(values):>{width}}" for values in (left, right, ratios))
        lines.append(f"{quantity.name:31}{cells}")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def warm(own: Sequence[Path], other: Sequence[Path]) -> None:
    """Drops the other side's files from the page cache and reads a side's own into it.

    Args:
        own: files to have in memory.
        other: files not to have there.
    """
    for file in other:
        if hasattr(os, "posix_fadvise"):
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for file in own:
        with file.open("rb", buffering=0) as stream:
            while stream.read(READ_BYTES):
                pass


def run_side(side: Side, arguments: Sequence[str]) -> None:
    """Runs a side's process to its end.

    Args:
        side: which.
        arguments: what is asked of it.

    Raises:
        Refused: it failed; its own words are in the text.
    """
    command = [*side.command, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(done.stderr.split()[-60:])
        raise Refused(
            f"{shlex.join(command)} must end with exit code 0, got {done.returncode}: {words}"
        )


@dataclass(frozen=True)
class Timing:
    """A side's report, and what else the machine did.

    Args:
        report: the side's.
        others: share of the machine's time that other processes took meanwhile; None where that is not known.
    """

    report: Report
    others: float | None


def measure(side: Side, other: Side, arguments: Sequence[str], patience: float = 0) -> Timing:
    """Warms the page cache and measures once.

    Args:
        side: what is measured.
        other: whose files may go.
        arguments: tokens and batches.
        patience: seconds to wait at most for other processes to do little.
    """
    warm(side.files, other.files)
    wait_until_idle(patience)
    before = read_processors()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        run_side(side, [*arguments, "--runs", "1", "--json", str(path)])
        report = Report.from_json(path.read_text())
    return Timing(report, others_share(before, read_processors()))


def check(ours: Side, theirs: Side) -> Sameness:
    """Has us continue a prompt, and the other side say what it thinks of each token.

    Args:
        ours: this package.
        theirs: the other side.

    Raises:
        Refused: they do not compute the same.
    """
    tokens = ["--prompt-tokens", str(CHECK_PROMPT_TOKENS), "--new-tokens", str(CHECK_NEW_TOKENS)]
    sample = measure(ours, theirs, [*tokens, "--batch", "1"]).report.sample
    warm(theirs.files, ours.files)
    with tempfile.TemporaryDirectory() as folder:
        ids, logits = Path(folder) / "tokens.json", Path(folder) / "logits.npy"
        ids.write_text(json.dumps(sample.prompt + sample.generated[:-1]))
        run_side(theirs, ["--tokens", str(ids), "--logits", str(logits)])
        sameness = judge(sample, np.load(logits))
    if not sameness.holds:
        raise Refused(f"both sides must compute the same, but {sameness}: nothing is compared")
    return sameness


def make_sides(arguments: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Side, Side]:
    """Sets up both sides; writes the twin where it is missing.

    Args:
        arguments: of the command line.
        checkpoint: what is compared.

    Raises:
        Refused: a package is missing, or there can be no twin.
    """
    folder = str(checkpoint.folder)
    ours = [sys.executable, "-m", "gpt_oss_mxfp4", "bench", "--model", folder]
    left = Side([*ours, *shlex.split(arguments.ours)], checkpoint.files)
    python = arguments.their_python
    threads = ["--threads", str(arguments.threads), *shlex.split(arguments.theirs)]
    if arguments.against == "transformers":
        script = str(HERE / "transformers_side.py")
        return left, Side([python, script, folder, *threads], checkpoint.files)
    if arguments.twin is None:
        raise Refused("--twin: must name a GGUF file, which is written if it is not there")
    if not arguments.twin.exists():
        print(f"writing {arguments.twin}", file=sys.stderr)
        try:
            write_twin(checkpoint, arguments.twin, arguments.dense)
        except NoTwin as error:
            raise Refused(f"{folder}: {error}") from error
    script = str(HERE / "llama_side.py")
    return left, Side([python, script, str(arguments.twin), *threads], (arguments.twin,))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks, measures in turn, and prints a table.

    Args:
        arguments: of the command line.

    Returns:
        What was measured, for JSON.
    """
    limit_threads(arguments.threads)
    arguments.threads = usable_cores()
    ours, theirs = make_sides(arguments, open_checkpoint(arguments.folder))
    print("checking that both compute the same", file=sys.stderr)
    sameness = check(ours, theirs)
    print(sameness)
    tokens = ["--prompt-tokens", str(arguments.prompt_tokens)]
    tokens += ["--new-tokens", str(arguments.new_tokens), "--batch", *map(str, arguments.batch)]
    rounds = []
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)
        pair = [(ours, theirs), (theirs, ours)]
        rounds.append([measure(*sides, tokens, arguments.patience) for sides in pair])
    left, right = [[pair[side].report for pair in rounds] for side in (0, 1)]
    how = f"{arguments.dense} dense weights there, " if arguments.against == "llama.cpp" else ""
    print(f"{arguments.folder.name}, {how}{arguments.threads} threads, {left[0].machine['cpu']}")
    print(format_table(left, right), end="")
    others = [timing.others for pair in rounds for timing in pair if timing.others is not None]
    if others and max(others) > DISTURBED:
        print(
            f"disturbed: other processes took up to {max(others):.0%} of the machine during a run"
        )
    return {
        "model": arguments.folder.name,
        "against": arguments.against,
        "dense": arguments.dense,
        "threads": arguments.threads,
        "ours_options": arguments.ours,
        "theirs_options": arguments.theirs,
        "sameness": asdict(sameness),
        "rounds": [
            {
                name: {**json.loads(timing.report.to_json()), "others": timing.others}
                for name, timing in zip(("ours", "theirs"), pair, strict=True)
            }
            for pair in rounds
        ],
    }


def main() -> int:
    """Compare what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a checkpoint of this package")
    add("--against", choices=("llama.cpp", "transformers"), default="llama.cpp")
    add("--twin", type=Path, metavar="FILE.gguf", help="the same weights for llama.cpp")
    add("--dense", choices=DENSE, default="bf16", help="of a twin that is written")
    add("--threads", type=int, help="default: all cores")
    add("--rounds", type=int, default=3, help="runs of each side; default: %(default)s")
    add("--batch", type=int, nargs="+", default=[1], help="sequences at once; default: 1")
    add("--prompt-tokens", type=int, default=512, help="of a batch; default: %(default)s")
    add("--new-tokens", type=int, default=64, help="of each sequence; default: %(default)s")
    add("--ours", default="", help="further options of gpt-oss-mxfp4 bench, in one argument")
    add("--theirs", default="", help="further options of the other side, in one argument")
    add("--their-python", default=sys.executable, help="where the other side is installed")
    add(
        "--patience",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait so long at most, before each run, until other processes do little; default: 0",
    )
    add("--json", type=Path, metavar="FILE", help="also write everything there")
    arguments = parser.parse_args()
    try:
        result = compare(arguments)
        if arguments.json:
            arguments.json.write_text(format_json(result))
    except (CheckpointError, Refused, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
