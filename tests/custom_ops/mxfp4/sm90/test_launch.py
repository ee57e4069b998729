"""What is launched for sizes, on a CUDA driver that runs no kernels."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda_driver import without_gpu
from tests.custom_ops.mxfp4.ptx import MOJO, ROOT

pytestmark = without_gpu.needs_compiler

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

Launched = Callable[..., list[tuple[str, str]]]
"""Gives the kernels that a program's arguments launch, each with its blocks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, and a program that launches what its arguments say."""
    folder = tmp_path_factory.mktemp("launches")
    without_gpu.build(folder)
    source = Path(__file__).with_name("launches.mojo")
    command = [str(MOJO), "build", "-I", str(ROOT / "custom_ops"), "--target-accelerator", "sm_90a"]
    done = subprocess.run(
        [*command, str(source), "-o", str(folder / "launches")],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the driver notes."""
    return tmp_path / "log"


@pytest.fixture
def launched(folder: Path, log: Path) -> Launched:
    def run(*words: str | int, **environment: str) -> list[tuple[str, str]]:
        log.write_text("")
        done = subprocess.run(
            [str(folder / "launches"), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={
                **ENVIRONMENT,
                **environment,
                "LD_LIBRARY_PATH": str(folder),
                "WITHOUT_GPU_LOG": str(log),
            },
        )
        assert done.returncode == 0, done.stderr
        assert "refused" not in log.read_text()
        return re.findall(
            r"^launch mxfp4_sm90_([a-z]+_[a-z]+)\S* (.*)$", log.read_text(), re.MULTILINE
        )

    return run


ONE = "grouped_mlp"
EACH = "grouped_matmul"


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 3 * 132), (64, 2 * 132)])
def test_one_kernel_has_as_many_blocks_as_are_there_at_once(
    launched: Launched, log: Path, tokens: int, blocks: int
) -> None:
    """And asks for all shared memory that multiprocessors could have, or fewer would be."""
    assert launched("both", tokens, 4, 32, 2880, 2880) == [(ONE, f"{blocks} 1 1")]
    assert re.search(r"^percent of shared memory \S+ 100$", log.read_text(), re.MULTILINE)


@pytest.mark.parametrize("tokens", [1, 64])
def test_blocks_that_are_not_there_at_once_do_not_wait_for_each_other(
    launched: Launched, tokens: int
) -> None:
    """Of a multiprocessor with less shared memory than a Hopper's."""
    room = {"WITHOUT_GPU_SHARED_BYTES": str(128 * 1024)}
    names = [name for name, _ in launched("both", tokens, 4, 32, 2880, 2880, **room)]
    assert names == [EACH, EACH]


def test_many_tokens_are_a_launch_for_each_matmul(launched: Launched) -> None:
    assert [name for name, _ in launched("both", 97, 4, 32, 2880, 2880)] == [EACH, EACH]


@pytest.mark.parametrize(
    ("tokens", "experts", "hidden", "inner", "count"),
    [(0, 4, 64, 64, 0), (1, 0, 64, 64, 0), (1, 4, 0, 64, 1), (1, 4, 64, 0, 1)],
)
def test_nothing_to_multiply(
    launched: Launched, tokens: int, experts: int, hidden: int, inner: int, count: int
) -> None:
    """Without rows or experts nothing is launched; without k outputs are the bias."""
    names = [name for name, _ in launched("both", tokens, 4, experts, hidden, inner)]
    assert names == count * [EACH]


@pytest.mark.parametrize("tokens", [1, 9, 32])
@pytest.mark.parametrize(
    ("outputs", "blocks"), [(32, 4), (128, 16), (1056, 132), (1057, 34), (2880, 90), (5120, 160)]
)
def test_dense_outputs_are_shared_out(
    launched: Launched, tokens: int, outputs: int, blocks: int
) -> None:
    """By 8 to a block, of both routers, or by 32."""
    assert [grid for _, grid in launched("dense", tokens, outputs, 2880)] == [f"{blocks} 1 1"]
