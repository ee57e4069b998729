"""pixi.toml, which pixi alone reads and no test has: its pins, and every task's command line.

The tasks run in the present environment and, as ``format`` writes, in a copy of the project.
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIXI = tomllib.loads((ROOT / "pixi.toml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IN_MAX_ALL = {"max-shmem-libs", "mblack"}
TORCH = {"torch", "filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy"}
TORCH |= {"typing-extensions"}
"""torch and what it needs, left out: the tests compare with the golden logits then."""


NVDISASM = {"nvidia-cuda-nvdisasm"}
"""PyPI's alone; the tests that look at SASS skip without it."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy what the tasks read and write, and not what may lie about beside it."""
    for name in ("run", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("benchmarks", "custom_ops", "demo", "gpt_oss_mxfp4", "scripts", "tests"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def run_task(name: str, folder: Path, *further: str) -> str:
    """Run a task as pixi would, arguments after the task's name appended; give its output."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [*shlex.split(PIXI["tasks"][name]), *further],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_channels_are_modulars_stable_one_and_conda_forge() -> None:
    assert PIXI["workspace"]["channels"] == ["https://conda.modular.com/max", "conda-forge"]


def test_max_and_python_are_those_of_pyproject() -> None:
    dependencies = PIXI["dependencies"]
    assert f"max[serve]{dependencies['max']}" in PROJECT["dependencies"]
    assert dependencies["max-all"] == dependencies["max"]
    assert dependencies["python"] == PROJECT["requires-python"]


def test_packages_are_those_of_pyproject() -> None:
    sources = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    wanted = {canonicalize_name(Requirement(source).name) for source in sources}
    given = {canonicalize_name(name) for name in PIXI["dependencies"]}
    assert given - {"python", "max-all"} == wanted - IN_MAX_ALL - TORCH - NVDISASM


def test_verbs_are_those_of_run() -> None:
    verbs = runpy.run_path(str(ROOT / "run"))["VERBS"].keys() | {"pytest"}
    # Training needs torch, see above, and comparing a llama.cpp that is compiled here.
    assert PIXI["tasks"].keys() == verbs - {"requirements", "train", "compare"}


def test_generate_starts() -> None:
    assert "--prompt" in run_task("generate", ROOT, "--help")


def test_pytest_collects() -> None:
    assert "test_pytest_collects" in run_task(
        "pytest", ROOT, "--collect-only", "-q", str(Path(__file__).relative_to(ROOT))
    )


@pytest.mark.parametrize("name", ["check", "format"])
def test_a_tasks_command_is_that_of_run(name: str) -> None:
    """Which is run before tests are."""
    command, script, *options = runpy.run_path(str(ROOT / "run"))["VERBS"][name]
    told = [command, str(Path(script).relative_to(ROOT)), *options]
    assert shlex.split(PIXI["tasks"][name]) == told


def test_format_mends_what_is_not_and_nothing_else(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    mended = copy / "scripts" / "check.py"
    mended.write_bytes(before[mended].replace(b"import argparse", b"import   argparse", 1))
    assert mended.read_bytes() != before[mended]
    run_task("format", copy)
    assert {path: path.read_bytes() for path in before} == before
