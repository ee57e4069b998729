"""Draw what was measured: a roofline of ops, bars of whole models. SVG or PNG, by the name of the file.

    ./run python benchmarks/cpu/plot.py roofline OPS.json PICTURE.svg [--title "..."]
    ./run python benchmarks/cpu/plot.py bars PICTURE.svg COMPARISON.json ...

OPS.json is a list of `{"name", "flop_per_byte", "gflops", "gbs", "roof_gbs", "peak_gflops"}`: an op's operations per
byte that it must read, what it reached, and the roofs of the same run. COMPARISON.json is what `compare.py` writes.
Needs matplotlib, a part of the `train` and `bench` extras.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.measurement import Report, Run

OURS, THEIRS = "#0072b2", "#999999"
"""Told apart in print and by the colour-blind: from Okabe and Ito's palette."""

ROOF = "0.35"

OTHER_KIND = 1.35
"""Peaks this far apart are of different instructions; those of one move less."""

RATES = (("prompt_rate", "prompt, tokens/s"), ("generation_rate", "generation, tokens/s"))


class WrongFile(Exception):
    """A file is not what it should be; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """A point of the roofline.

    Args:
        name: of the op and its case.
        flop_per_byte: operations per byte that has to be read.
        gflops: reached.
        gbs: reached.
        roof_gbs: a plain read's, in the same run.
        peak_gflops: the multiply instruction's, in the same run.
    """

    name: str
    flop_per_byte: float
    gflops: float
    gbs: float
    roof_gbs: float
    peak_gflops: float

    @property
    def share(self) -> float:
        """Of the roof above this op."""
        return self.gflops / min(self.roof_gbs * self.flop_per_byte, self.peak_gflops)


@dataclass(frozen=True)
class Spread:
    """A median and the range around it."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Takes the spread of some values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Group:
    """Bars that stand beside one another.

    Args:
        label: what was compared.
        ours: for each of `RATES`.
        theirs: for each of `RATES`.
        ratios: of neighbouring runs, for each of `RATES`.
        engines: names of both.
        machine: what ran on what.
    """

    label: str
    ours: tuple[Spread, ...]
    theirs: tuple[Spread, ...]
    ratios: tuple[Spread, ...]
    engines: tuple[str, str]
    machine: str


def read_ops(path: Path) -> list[Op]:
    """Reads a roofline's points.

    Args:
        path: a JSON file as this module's docstring says; other keys are ignored.

    Raises:
        WrongFile: it is something else.
    """
    names = [field.name for field in fields(Op)]
    try:
        return [Op(**{name: item[name] for name in names}) for item in json.loads(path.read_text())]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise WrongFile(f"{path}: must be a list of objects with {', '.join(names)}") from error


def read_group(path: Path) -> Group:
    """Reads a comparison; of its batches the smallest is drawn.

    Args:
        path: what `compare.py --json` wrote.

    Raises:
        WrongFile: it is something else.
    """
    try:
        found = json.loads(path.read_text())
        rounds = [[_report(each[side]) for side in ("ours", "theirs")] for each in found["rounds"]]
        label = _label(found, _first_run(rounds[0][0]).prompt_tokens)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise WrongFile(f"{path}: must be what compare.py --json writes") from error
    first = [report.subject.engine for report in rounds[0]]
    spreads: dict[str, list[Spread]] = {"ours": [], "theirs": [], "ratios": []}
    for name, _ in RATES:
        ours, theirs = [[_rate(pair[side], name) for pair in rounds] for side in (0, 1)]
        spreads["ours"].append(Spread.of(ours))
        spreads["theirs"].append(Spread.of(theirs))
        spreads["ratios"].append(Spread.of([a / b for a, b in zip(ours, theirs, strict=True)]))
    return Group(
        label=label,
        ours=tuple(spreads["ours"]),
        theirs=tuple(spreads["theirs"]),
        ratios=tuple(spreads["ratios"]),
        engines=(first[0], first[1]),
        machine=f"{found['model']} on {rounds[0][0].machine['cpu']}, {found['threads']} threads",
    )


def _report(found: Any) -> Report:
    return Report.from_json(json.dumps(found))


def _first_run(report: Report) -> Run:
    return min(report.runs, key=lambda run: run.batch)


def _rate(report: Report, name: str) -> float:
    batch = _first_run(report).batch
    return statistics.median(getattr(run, name) for run in report.runs if run.batch == batch)


def _label(found: dict[str, Any], prompt_tokens: int) -> str:
    """What both sides were told; ours first."""
    ours = [f"{word.strip()}" for word in found["ours_options"].split("--") if word.strip()]
    theirs = found["theirs_options"].strip()
    if found["against"] == "llama.cpp":
        theirs = f"{found['dense']} dense {theirs}".strip()
    lines = [*(ours or ["defaults"]), f"{found['against']}: {theirs or 'defaults'}"]
    lines.append(f"prompt of {prompt_tokens}")
    return "\n".join(lines)


def cluster(values: Sequence[float]) -> list[Spread]:
    """Parts values that are of one kind from those of another: bf16's peak is twice float32's or so.

    Args:
        values: at least one, all above 0.

    Returns:
        Spreads from low to high; the least of each is more than `OTHER_KIND` times the largest of the one before.
    """
    clusters: list[list[float]] = []
    for value in sorted(values):
        if clusters and value <= OTHER_KIND * clusters[-1][-1]:
            clusters[-1].append(value)
        else:
            clusters.append([value])
    return [Spread.of(found) for found in clusters]


def draw_roofline(ops: Sequence[Op], title: str) -> Any:
    """Draws ops under their roofs, both axes logarithmic.

    Args:
        ops: at least one. Roofs are the medians of theirs; shaded is from the lowest to the highest.
        title: names the machine.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log")
    read, peaks = Spread.of([op.roof_gbs for op in ops]), cluster([op.peak_gflops for op in ops])
    left = min(op.flop_per_byte for op in ops) / 2
    right = 3 * max(*(op.flop_per_byte for op in ops), peaks[-1].high / read.low)
    ends = (left, peaks[-1].high / read.low)
    axes.plot(ends, [read.middle * x for x in ends], color=ROOF, linewidth=1.5)
    axes.fill_between(
        ends,
        [read.low * x for x in ends],
        [read.high * x for x in ends],
        color=ROOF,
        alpha=0.2,
        linewidth=0,
    )
    for peak in peaks:
        ends = (peak.middle / read.middle, right)
        axes.plot(ends, [peak.middle] * 2, color=ROOF, linewidth=1.5)
        axes.fill_between(ends, [peak.low] * 2, [peak.high] * 2, color=ROOF, alpha=0.2, linewidth=0)
        axes.annotate(
            f"multiply: {peak.middle:.0f} GFLOP/s",
            (ends[0], peak.middle),
            xytext=(12, 5),
            textcoords="offset points",
        )
    for number, op in enumerate(sorted(ops, key=lambda op: op.flop_per_byte), start=1):
        label = f"{number}  {op.name}: {op.share:.0%} of its roof"
        axes.plot(op.flop_per_byte, op.gflops, "o", color=f"C{(number - 1) % 10}", label=label)
        # Neighbours on either side of their points, which often lie close.
        axes.annotate(
            str(number),
            (op.flop_per_byte, op.gflops),
            xytext=(5, -12) if number % 2 else (-5, 5),
            textcoords="offset points",
            ha="left" if number % 2 else "right",
        )
    axes.set_xlim(left, right)
    lowest = min(read.low * left, *(op.gflops for op in ops))
    axes.set_ylim(lowest / 1.5, peaks[-1].high * 1.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xlabel("operations per byte that has to be read")
    axes.set_ylabel("GFLOP/s")
    roof = f"read: {read.middle:.0f} GB/s ({read.low:.0f}-{read.high:.0f} during the run)"
    axes.set_title(f"{title}\n{roof}".strip(), fontsize="medium")
    axes.grid(visible=True, which="major", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def draw_bars(groups: Sequence[Group]) -> Any:
    """Draws prompt and generation rates of both engines, with ratios.

    Args:
        groups: at least one, each of the same two engines.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, 1.2 + 2 * len(groups)), 6.4), layout="constrained")
    width = 0.36
    rows = figure.subplots(len(RATES), 1, sharex=True)
    for index, (axes, (_, name)) in enumerate(zip(rows, RATES, strict=True)):
        highest = max(max(g.ours[index].high, g.theirs[index].high) for g in groups)
        for side, color in ((0, OURS), (1, THEIRS)):
            values = [(group.ours, group.theirs)[side][index] for group in groups]
            bars = axes.bar(
                [i + (side - 0.5) * width for i in range(len(groups))],
                [value.middle for value in values],
                width,
                color=color,
                label=groups[0].engines[side],
                yerr=[
                    [value.middle - value.low for value in values],
                    [value.high - value.middle for value in values],
                ],
                error_kw={"ecolor": "0.2", "capsize": 3, "linewidth": 1},
            )
            texts = [f"{value.middle:.{1 if value.middle < 100 else 0}f}" for value in values]
            axes.bar_label(bars, texts, padding=2, fontsize="small")
        for i, group in enumerate(groups):
            ratio = f"{group.ratios[index].middle:.2f} x"
            axes.text(i, 1.16 * highest, ratio, ha="center", va="bottom", weight="bold")
        axes.set_ylim(0, 1.32 * highest)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xticks(range(len(groups)), [group.label for group in groups])
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    machines = "; ".join(sorted({group.machine for group in groups}))
    figure.suptitle(f"{machines}\nmedians, ranges, and medians of paired ratios", fontsize="medium")
    return figure


def save(figure: Any, picture: Path) -> None:
    """Writes a figure without a date or random ids: equal figures are equal files.

    Args:
        figure: matplotlib's.
        picture: a file ending in .svg or .png.

    Raises:
        ValueError: it ends in something that matplotlib does not know.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": picture.name}):
        metadata = {"Date": None} if picture.suffix == ".svg" else {}
        figure.savefig(picture, dpi=150, metadata=metadata)


def main() -> int:
    """Draw what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    roofline = kinds.add_parser("roofline", help="ops under the roofs of the machine")
    roofline.add_argument("ops", type=Path, metavar="OPS.json")
    roofline.add_argument("picture", type=Path, metavar="PICTURE")
    roofline.add_argument("--title", default="", help="names the machine")
    bars = kinds.add_parser("bars", help="tokens/s of two engines")
    bars.add_argument("picture", type=Path, metavar="PICTURE")
    bars.add_argument("comparisons", type=Path, nargs="+", metavar="COMPARISON.json")
    arguments = parser.parse_args()
    try:
        if arguments.kind == "roofline":
            figure = draw_roofline(read_ops(arguments.ops), arguments.title)
        else:
            figure = draw_bars([read_group(path) for path in arguments.comparisons])
        save(figure, arguments.picture)
    except (WrongFile, OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
