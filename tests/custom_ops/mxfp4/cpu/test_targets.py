"""What CPUs that are not here would run: their instructions, in what the compiler makes for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import MOJO, ROOT

PROGRAM = Path(__file__).with_name("test_words.mojo")


@pytest.mark.parametrize(
    ("triple", "cpu", "instruction"),
    [
        ("x86_64-unknown-linux-gnu", "alderlake", "vpdpbusd\t%ymm"),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "sdot\tv"),
    ],
)
def test_bytes_are_multiplied_by(triple: str, cpu: str, instruction: str, tmp_path: Path) -> None:
    assembly = tmp_path / "words.s"
    command = [str(MOJO), "build", "--emit", "asm", "-I", str(ROOT / "custom_ops")]
    command += ["--target-triple", triple, "--target-cpu", cpu]
    subprocess.run([*command, str(PROGRAM), "-o", str(assembly)], check=True, capture_output=True)
    assert instruction in assembly.read_text()
