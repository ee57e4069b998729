"""PTX of kernels, compiled by a Mojo program: no GPU is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOJO = Path(sys.executable).parent / "mojo"


def emit(program: Path) -> dict[str, str]:
    """Runs a program that prints modules.

    Args:
        program: prints each behind a line ``// variant NAME``.

    Returns:
        PTX by name.
    """
    done = subprocess.run(
        [str(MOJO), "run", "-I", str(ROOT / "custom_ops"), str(program)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    _, *parts = re.split(r"^// variant (\w+)$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))
