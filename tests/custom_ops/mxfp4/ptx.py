"""PTX of kernels, compiled by Mojo programs: no GPU is needed.

    python -m tests.custom_ops.mxfp4.ptx FOLDER

writes it for a machine without Mojo, where MXFP4_PTX=FOLDER names it.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOJO = Path(sys.executable).parent / "mojo"
SM90 = Path(__file__).parent / "sm90" / "emit.mojo"
SM90_MLP = Path(__file__).parent / "sm90" / "emit_mlp.mojo"
SM90_CUTS = Path(__file__).parent / "sm90" / "emit_cuts.mojo"
SM90_SCHEDULE = Path(__file__).parent / "sm90" / "emit_schedule.mojo"
SM90_ATTENTION = Path(__file__).parent / "sm90" / "emit_attention.mojo"
SM90_DENSE = Path(__file__).parent / "sm90" / "emit_dense.mojo"
GPU = Path(__file__).parent / "gpu" / "emit.mojo"


def compile_variants(program: Path) -> dict[str, str]:
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


def folder_name(program: Path) -> str:
    """Gives the name of the folder for a program's PTX."""
    return program.parent.name + program.stem.removeprefix("emit")


@functools.cache
def emit(program: Path) -> dict[str, str]:
    """Gives PTX by name: what a program prints, or what was written to the folder that MXFP4_PTX names.

    Args:
        program: `SM90`, `SM90_MLP`, `SM90_CUTS`, `SM90_SCHEDULE`, `SM90_ATTENTION`, `SM90_DENSE` or `GPU`.

    Raises:
        FileNotFoundError: there is nothing of it in that folder.
    """
    folder = os.environ.get("MXFP4_PTX")
    if not folder:
        return compile_variants(program)
    name = folder_name(program)
    files = sorted((Path(folder) / name).glob("*.ptx"))
    if not files:
        raise FileNotFoundError(
            f"MXFP4_PTX={folder} must have {name}/*.ptx, as python -m {__name__} writes it"
        )
    return {file.stem: file.read_text() for file in files}


def facts(ptx: str) -> dict[str, int]:
    """Gives what a program says of a variant beside its PTX: numbers by name, in lines ``// NAME NUMBER``."""
    return {name: int(number) for name, number in re.findall(r"(?m)^// (\w+) (\d+)$", ptx)}


def main() -> None:
    """Write all programs' PTX to a folder."""
    folder = Path(sys.argv[1])
    for program in (SM90, SM90_MLP, SM90_CUTS, SM90_SCHEDULE, SM90_ATTENTION, SM90_DENSE, GPU):
        target = folder / folder_name(program)
        target.mkdir(parents=True, exist_ok=True)
        for name, ptx in compile_variants(program).items():
            (target / f"{name}.ptx").write_text(ptx)


if __name__ == "__main__":
    main()
