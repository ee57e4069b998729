"""PTX of the Hopper kernels' variants, compiled once: no GPU is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
MOJO = Path(sys.executable).parent / "mojo"


@pytest.fixture(scope="session")
def kernels() -> dict[str, str]:
    """PTX by the variant's name."""
    done = subprocess.run(
        [str(MOJO), "run", "-I", str(ROOT / "custom_ops"), str(HERE / "emit.mojo")],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    _, *parts = re.split(r"^// variant (\w+)$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))
