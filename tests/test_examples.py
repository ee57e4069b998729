"""Examples run and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""


def test_grouped_matmul_outside_of_the_model() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "grouped_matmul.py")],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r".*\(7, 96\); .* an error of (\d+\.\d)%\n", done.stdout)
    assert found, done.stdout
    # A code's rounding is uniform within steps of 1/8 to 1/3 of a weight: a tenth of it, about.
    assert 5 < float(found[1]) < 20
