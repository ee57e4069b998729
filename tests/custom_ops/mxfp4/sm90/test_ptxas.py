"""What the assembler makes of each kernel: registers within the plan, nothing spilled, no product serialised."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PTXAS = shutil.which("ptxas")

REGISTERS = {
    "decode_8": 80,
    "decode_16_gated": 80,
    "middle_32": 80,
    "middle_64_gated": 128,
    "prefill_128": 128,
    "prefill_128_gated": 128,
}
"""Registers a thread may have when its block is launched: `SM_REGISTERS / (threads * blocks)`, in eights."""


@pytest.mark.skipif(PTXAS is None, reason="ptxas, of the CUDA compiler, is not on the PATH")
@pytest.mark.parametrize("name", REGISTERS)
def test_the_assembler_has_nothing_to_say(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    source = tmp_path / f"{name}.ptx"
    source.write_text(kernels[name])
    done = subprocess.run(
        [str(PTXAS), "-arch=sm_90a", "-v", str(source), "-o", str(tmp_path / "cubin")],
        capture_output=True,
        text=True,
        check=True,
    )
    report = done.stdout + done.stderr
    assert "warning" not in report.lower(), report
    assert "C75" not in report, report
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report)
    found = re.search(r"Used (\d+) registers", report)
    assert found, report
    assert int(found[1]) <= REGISTERS[name]


def test_every_kernel_has_a_plan(kernels: dict[str, str]) -> None:
    assert kernels.keys() == REGISTERS.keys()
