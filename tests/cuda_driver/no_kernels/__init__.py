"""A CUDA driver for MAX's runtime that runs no kernels: what MAX does on the host for a GPU, on a machine without one.

    python -m tests.cuda_driver.no_kernels FOLDER

writes the libraries to a folder. A process that has it in LD_LIBRARY_PATH finds an H200.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
LIBRARIES = {"driver": ("libcuda.so.1", "cu"), "management": ("libnvidia-ml.so.1", "nvml")}
"""A library and what its functions' names begin with, by the name of the file that has them."""

COMMAND = (
    sys.executable,
    "-c",
    "from gpt_oss_mxfp4 import cli, machine; machine._GPU_DEVICES = ('/dev/null',); exit(cli.main())",
)
"""gpt-oss-mxfp4, which believes that there is a GPU."""

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler, cc")


def build(folder: Path) -> None:
    """Writes the libraries.

    Args:
        folder: where to.
    """
    assert COMPILER
    core = importlib.util.find_spec("max._core")
    assert core
    assert core.origin
    looked_up = Path(core.origin).read_bytes()
    for name, (library, prefix) in LIBRARIES.items():
        source = Path(__file__).parent / f"{name}.c"
        names = set(re.findall(rf"\b{prefix}[A-Z]\w+(?=\()", source.read_text()))
        others = {
            x.decode() for x in re.findall(rb"(?<=\0)%b[A-Z]\w+(?=\0)" % prefix.encode(), looked_up)
        }
        stubs = folder / f"{name}_stubs.c"
        stubs.write_text("".join(f"int {x}() {{ return 0; }}\n" for x in sorted(others - names)))
        output = str(folder / library)
        command = [COMPILER, "-O1", "-w", "-shared", "-fPIC", "-pthread", "-o", output]
        subprocess.run([*command, str(source), str(stubs)], check=True)
