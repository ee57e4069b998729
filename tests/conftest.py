"""What all tests share: one MAX session, seeded random numbers, and Mojo test programs as pytest items."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from max.engine import InferenceSession

ROOT = Path(__file__).resolve().parent.parent
MOJO = Path(sys.executable).parent / "mojo"

# What tests compile is found again by other tests of the run, and what earlier runs compiled is not, unless a folder is
# named. A worker of pytest-xdist inherits that of the process that gives it its tests.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = os.environ.get("GPT_OSS_MXFP4_TEST_CACHE", "")
    if not _CACHE:
        _CACHE = tempfile.mkdtemp(prefix="gpt-oss-mxfp4-")
        atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ["GPT_OSS_MXFP4_CACHE"] = _CACHE

# How long an example takes says what else runs on the machine. A GPU's host has no hypothesis.
with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any machine")

# What a script runs in the background ignores Ctrl-C; commands under test would inherit that, and not end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251120)


@pytest.fixture(autouse=True)
def precision() -> None:
    """What a test before asked for by loading a model, which does it through the environment, is over."""
    for variable in ("GPT_OSS_MXFP4_ACTIVATIONS", "GPT_OSS_MXFP4_DENSE_WEIGHTS"):
        os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def session() -> InferenceSession:
    """One session for all graphs: its thread pool and kernel cache are made once."""
    from max.driver import CPU
    from max.engine import InferenceSession

    return InferenceSession(devices=[CPU()])


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> MojoFile | None:
    """Collects test_*.mojo: programs that end in a TestSuite and exit with 1 on failure."""
    if file_path.suffix == ".mojo" and file_path.name.startswith("test_"):
        return MojoFile.from_parent(parent, path=file_path)
    return None


CPU_TARGETS = {"native": "", "x86-64-v3": "avx2", "x86-64-v4": "avx512f"}
"""What Mojo test programs are compiled for, and the flag of /proc/cpuinfo without which it cannot run here.

The kernels pick their instructions from the target's features: AVX2 and AVX-512 without BF16 are other paths than
this machine's own.
"""


class MojoFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        # What the GPU kernels share with these tests is integers: no CPU's features matter there.
        for_gpu = {"sm90", "layouts"} & {*self.path.parts}
        for target in ["native"] if for_gpu else CPU_TARGETS:
            yield MojoProgram.from_parent(self, name=f"{self.path.stem}[{target}]", target=target)


class MojoFailure(Exception):
    """A Mojo test program's own report."""


class MojoProgram(pytest.Item):
    def __init__(self, *, target: str, **item: Any) -> None:
        super().__init__(**item)
        self.target = target
        needs = CPU_TARGETS[target]
        if needs and needs not in cpu_flags():
            self.add_marker(pytest.mark.skip(reason=f"this CPU has no {needs}"))

    def runtest(self) -> None:
        command = [str(MOJO), "run", "-I", str(ROOT / "custom_ops")]
        if self.target != "native":
            command += ["--target-cpu", self.target]
        # Importing MAX sets variables behind os.environ's back, with which another Python does not
        # find its packages; an environment named here holds only what os.environ knows.
        done = subprocess.run(
            [*command, str(self.path)],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
        if done.returncode != 0:
            raise MojoFailure(f"{done.stdout}\n{done.stderr}")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"mojo run {self.path.relative_to(ROOT)} for {self.target}"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Features of this machine's CPU, as Linux names them on x86-64; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return next(
        (frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset()
    )
