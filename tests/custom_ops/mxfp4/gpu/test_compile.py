"""The GPU tests' graphs, with every op that has a GPU kernel, compile for a Hopper GPU that need not be here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""


@pytest.mark.slow
def test_every_op_compiles_for_hopper() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.custom_ops.mxfp4.gpu.compile_graph"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "sm90_stage" in done.stdout.split()
