"""Compiling ahead of time: for this machine, and for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli
from scripts.make_synthetic import SIZES
from tests.golden import CHECKPOINT
from tests.sparse_checkpoint import make_sparse_checkpoint

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""


def run(verb: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", verb, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, **variables},
    )


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("generate", "--prompt", "The keeper", "--max-new-tokens", "8", *arguments)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint, for this machine's CPU."""
    output = tmp_path_factory.mktemp("compile") / "for" / "cpu"
    done = run("compile", "--model", str(CHECKPOINT), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    assert [path.name for path in output.parent.iterdir()] == ["cpu"]
    return output


@pytest.mark.slow
def test_what_was_compiled_generates_the_same(compiled: Path) -> None:
    here = generate("--model", str(CHECKPOINT))
    done = generate("--model", str(CHECKPOINT), "--precompiled", str(compiled))
    assert done.returncode == 0, done.stderr
    assert done.stdout == here.stdout


@pytest.mark.slow
def test_what_was_compiled_for_another_model_is_refused(compiled: Path) -> None:
    done = generate("--precompiled", str(compiled))
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"gpt-oss-mxfp4: --precompiled: {compiled} must be compiled for this model"
    )


def test_an_output_that_is_there_is_not_replaced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", "--output", str(tmp_path)]) == 2
    assert capfd.readouterr() == (
        "",
        f"gpt-oss-mxfp4: --output: {tmp_path} exists already; remove it or name another folder\n",
    )


def test_a_checkpoint_that_is_none_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(["compile", *arguments]) == 2
    assert "must hold config.json" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "compiled"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["20b", "120b"])
def test_published_sizes_compile_for_hopper(size: str, tmp_path: Path, output: Path) -> None:
    """The whole model; equal layers are calls of the same two subgraphs."""
    model = make_sparse_checkpoint(tmp_path / "model", SIZES[size])
    done = run("compile", "--model", str(model), "--target", "cuda:sm_90a", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert sum(file.stat().st_size for file in output.rglob("*")) > 10**6
