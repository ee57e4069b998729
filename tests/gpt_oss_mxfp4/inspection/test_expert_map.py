"""The picture of the experts' scales: its cells are the values, and any checkpoint's name can stand in it."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint.layout import PROJECTIONS
from gpt_oss_mxfp4.checkpoint.scale_statistics import ScaleStatistics
from gpt_oss_mxfp4.inspection.expert_map import draw_expert_map
from tests.golden import CHECKPOINT

SVG = "{http://www.w3.org/2000/svg}"


def draw(values: np.ndarray, name: str = "a model") -> ET.Element:
    statistics = dict.fromkeys(PROJECTIONS, ScaleStatistics(values, values, values))
    return ET.fromstring(draw_expert_map(name, statistics))


def cells(panel: ET.Element) -> list[tuple[float, float, float, str]]:
    """x, y, width and color of each rectangle of a group."""
    rects = panel.findall(f"{SVG}rect")
    return [
        (float(r.get("x", "")), float(r.get("y", "")), float(r.get("width", "")), r.get("fill", ""))
        for r in rects
    ]


def test_equal_neighbours_are_one_rectangle_and_the_ends_have_the_ends_colors() -> None:
    groups = draw(np.array([[0.0, 0.0, 1.0], [0.5, 1.0, 1.0]])).findall(f"{SVG}g")
    assert len(groups) == 2 * 3 * 2  # a map and a legend each
    first, second, third, fourth = cells(groups[0])
    assert (first[3], second[3]) == ("#440154", "#fde725")
    assert first[2] == pytest.approx(2 * second[2], abs=0.02)
    assert third[1] > first[1]
    assert fourth[3] == "#fde725"
    assert third[3] not in ("#440154", "#fde725")
    shades = [color for *_, color in cells(groups[1])]
    assert (shades[0], shades[-1], len(set(shades))) == ("#440154", "#fde725", 64)


def test_equal_values_have_one_color_and_one_number() -> None:
    root = draw(np.full((36, 128), -5.0))
    colors = {color for group in root.findall(f"{SVG}g") for *_, color in cells(group)}
    assert len(colors) == 1
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert texts.count("-5.00") == 2
    assert texts.count("-5") == 2


def test_a_name_is_text_and_no_markup() -> None:
    root = draw(np.zeros((1, 1)), name="<a&b>")
    assert root.findall(f"{SVG}text")[0].text == "Scales of the experts of <a&b>"


def test_inspect_draws_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scales.svg"
    assert cli.main(["inspect", str(CHECKPOINT), "--experts", str(output)]) == 0
    out, err = capfd.readouterr()
    assert out.endswith("would run: yes\n")
    assert err.startswith("reading scales: 92.2 kB")
    assert len(ET.parse(output).getroot().findall(f"{SVG}g")) > 6
    assert [path.name for path in tmp_path.iterdir()] == ["scales.svg"]


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        (
            str(CHECKPOINT),
            "scales.png",
            "--experts: scales.png must end in .svg, there is no other",
        ),
        (
            "openai/gpt-oss-20b",
            "scales.svg",
            "--experts: openai/gpt-oss-20b must be a folder, scales",
        ),
        (
            str(CHECKPOINT),
            "/absent/s.svg",
            "--experts: /absent/s.svg cannot be written (No such file",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    capfd: pytest.CaptureFixture[str], model: str, output: str, message: str
) -> None:
    assert cli.main(["inspect", model, "--experts", output]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"gpt-oss-mxfp4: {message}")


def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.svg").mkdir()
    for output, reason in (
        (tmp_path / "file/x.svg", "Not a directory"),
        (tmp_path / ("x" * 260 + ".svg"), "File name too long"),
        (tmp_path / "folder.svg", "Is a directory"),
    ):
        assert cli.main(["inspect", str(CHECKPOINT), "--experts", str(output)]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.splitlines()[-1] == (
            f"gpt-oss-mxfp4: --experts: {output} cannot be written ({reason})"
        )
        # Before the scales are read, but for a name that is wrong by itself.
        assert ("reading scales" in err) == (reason == "File name too long")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.svg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_not_utf_8_is_drawn(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model-\udcff", tmp_path / "scales.svg"
    shutil.copytree(CHECKPOINT, model)
    assert cli.main(["inspect", str(model), "--experts", str(output)]) == 0
    assert "experts of model-?</text>" in output.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [model.name, output.name]
