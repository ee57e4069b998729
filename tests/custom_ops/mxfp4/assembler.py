"""CUDA's assembler and disassembler, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.custom_ops.mxfp4.sass import Instruction, parse_sass

PTXAS = shutil.which("ptxas")


def _find_nvdisasm() -> str | None:
    """On the PATH, or where NVIDIA's Python packages put it."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    return shutil.which("nvdisasm") or next(map(str, packages.glob("*/bin/nvdisasm")), None)


NVDISASM = _find_nvdisasm()

needs_ptxas = pytest.mark.skipif(
    PTXAS is None, reason="ptxas, of the CUDA compiler, is not on the PATH"
)
needs_nvdisasm = pytest.mark.skipif(
    PTXAS is None or NVDISASM is None, reason="ptxas or nvdisasm, CUDA's, is not installed"
)


def assemble(ptx: str, folder: Path) -> tuple[str, Path]:
    """What ptxas says, and the file it makes."""
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    done = subprocess.run(
        [str(PTXAS), "-arch=sm_90a", "-v", str(source), "-o", str(cubin)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr, cubin


def disassemble(ptx: str, folder: Path) -> list[Instruction]:
    _, cubin = assemble(ptx, folder)
    done = subprocess.run(
        [str(NVDISASM), "-c", str(cubin)], capture_output=True, text=True, check=True
    )
    return parse_sass(done.stdout)
