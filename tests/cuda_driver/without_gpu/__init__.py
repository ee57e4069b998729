"""A CUDA driver for a machine without a GPU: MAX's runtime finds an H200, and kernels run on the CPU, from their PTX.

    python -m tests.cuda_driver.without_gpu COMMAND...

runs a command that finds it, for example `gpt-oss-mxfp4 generate --devices gpu --prompt "..."`, or `pytest tests/gpu`
with MXFP4_GPU_TESTS=1. All of a model's kernels run, MAX's own too: PTX is kept where MAX would have it assembled.

- `driver.c`: the driver: memory, copies, launches, graphs; without WITHOUT_GPU_RUN it launches nothing.
- `management.c`: what MAX asks NVML.
- `program.c`: PTX to instructions; `kernels.c`: grids, clusters, blocks, warps, branches, barriers of threads;
  `compute.c`, `memory.c` and `matrix.c`: what instructions do.

Beside `tests.ptx_emulator`, which looks for races and missing waits, it is fast enough for whole models and knows what
MAX's kernels use; copies and products happen at once. What it does not know is an error. Source of all semantics: PTX
ISA 9.0, docs.nvidia.com/cuda/parallel-thread-execution.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
NOT_SUPPORTED = 801
"""CUDA_ERROR_..."""
SOURCES = Path(__file__).parent
LIBRARIES = {
    "driver": ("libcuda.so.1", "cu", ("program", "kernels", "compute", "memory", "matrix")),
    "management": ("libnvidia-ml.so.1", "nvml", ()),
}
"""By the name of its file: a library, what its functions' names begin with, what else it is made of."""

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
    for name, (library, prefix, parts) in LIBRARIES.items():
        source = (SOURCES / f"{name}.c").read_text()
        names = set(re.findall(rf"\b{prefix}[A-Z]\w+(?=\()", source))
        others = {
            x.decode() for x in re.findall(rb"(?<=\0)%b[A-Z]\w+(?=\0)" % prefix.encode(), looked_up)
        }
        stubs = folder / f"{name}_stubs.c"
        stubs.write_text("".join(map(_stub, sorted(others - names))))
        files = [str(SOURCES / f"{x}.c") for x in (name, *parts)]
        options = [
            "-O2",
            "-march=native",
            "-ffp-contract=off",
            "-fwrapv",
            "-shared",
            "-fPIC",
            "-pthread",
        ]
        command = [COMPILER, *options, *files, str(stubs), "-lm", "-o", str(folder / library)]
        subprocess.run(command, check=True)
    assembler = shutil.copy(SOURCES / "ptxas.sh", folder)
    Path(assembler).chmod(0o755)


def _stub(name: str) -> str:
    """A function that does nothing, successfully, unless it is to change memory or a graph."""
    changes = re.match(r"cu(Memcpy|Memset|Launch|GraphAdd|GraphExecKernel|GraphKernel)", name)
    return f"int {name}() {{ return {NOT_SUPPORTED if changes else 0}; }}\n"


def environment(folder: Path, cache: Path) -> dict[str, str]:
    """Gives the variables with which a process finds the driver and runs kernels.

    Args:
        folder: from :func:`build`.
        cache: where what MAX compiles is kept, apart from what it has assembled for real GPUs.
    """
    return {
        "LD_LIBRARY_PATH": str(folder),
        "MODULAR_NVPTX_COMPILER_PATH": str(folder / "ptxas.sh"),
        "WITHOUT_GPU_RUN": "1",
        "XDG_CACHE_HOME": str(cache),
    }


def default_cache() -> Path:
    """Returns a folder that is kept, as compiling a model takes some minutes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt-oss-mxfp4-without-gpu"
