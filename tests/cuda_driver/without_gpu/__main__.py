"""Run a command that finds the driver."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cuda_driver.without_gpu import COMMAND, build, default_cache, environment


def main() -> int:
    """Builds the driver for the time that the command takes."""
    if not sys.argv[1:]:
        sys.exit("python -m tests.cuda_driver.without_gpu COMMAND...")
    name, *arguments = sys.argv[1:]
    command = {"gpt-oss-mxfp4": COMMAND, "python": (sys.executable,)}.get(name, (name,))
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        variables = {**os.environ, **environment(Path(folder), default_cache())}
        return subprocess.run([*command, *arguments], check=False, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
