"""The demo model on a Hopper GPU that the driver plays: every kernel of it runs, MAX's own too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda_driver import without_gpu

pytestmark = [without_gpu.needs_compiler, pytest.mark.slow]

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

GENERATE = ["generate", "--prompt", "What is 4587 + 968?", "--show-reasoning"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command that finds the driver; what one has compiled is there for the next."""
    folder, cache = tmp_path_factory.mktemp("driver"), tmp_path_factory.mktemp("cache")
    without_gpu.build(folder)

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        variables = {**ENVIRONMENT, **without_gpu.environment(folder, cache), **variables}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)

    return run


def test_it_answers_as_on_a_cpu_and_each_tensor_is_written_within_its_bounds(
    run: Run, tmp_path: Path
) -> None:
    """Each tensor is an allocation of its own, behind which the driver lets nothing be stored."""
    log = tmp_path / "log"
    done = run(
        *without_gpu.COMMAND,
        *GENERATE,
        "--devices",
        "gpu",
        MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE="0",
        WITHOUT_GPU_LOG=str(log),
    )
    assert done.returncode == 0, done.stderr
    on_cpu = subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", *GENERATE],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert done.stdout == on_cpu.stdout
    lines = log.read_text().splitlines()
    loads = [line for line in lines if line.startswith("behind: ")]
    # MAX's attention loads as many sinks as its tiles have heads, which are past the last one, if tensors lie apart.
    assert loads
    assert all(line.startswith("behind: sm90_mha_") for line in loads), loads
    assert any(line.startswith("ran sm90_matmul_") for line in lines), (
        "several rows by MAX's matmul"
    )


def test_each_sequence_of_a_batch_gets_what_it_gets_alone(run: Run) -> None:
    """It did not while products past a row's end were stored (NOTES F90)."""
    done = run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/gpu/test_batch.py",
        MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE="0",
        MXFP4_GPU_TESTS="1",
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout


def test_device_graphs_of_several_sequences_give_the_same_logits(run: Run) -> None:
    """They did not while MAX's matmul stored past its output (NOTES F90)."""
    done = run(sys.executable, "scripts/check_device_graphs.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("apart by 0.0e+00 of the range") == 16
