"""Check formatting, lint, types and docstrings of the whole project; ``--fix`` formats instead."""

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOJO_FOLDERS = ("custom_ops", "tests", "benchmarks")
LINE_LENGTH = "100"  # as ruff has it

CHECKS = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    (
        "mojo",
        "doc",
        "--diagnose-missing-doc-strings",
        "-Werror",
        "-o",
        "/dev/null",
        "custom_ops/mxfp4",
    ),
    # Nothing else reads these but who runs them, and this says whether they still parse, in seconds.
    *(
        ("mojo", "doc", "-I", "custom_ops", "-o", "/dev/null", program)
        for program in (
            "benchmarks/cpu/kernels.mojo",
            "tests/custom_ops/mxfp4/sm90/emit_cuts.mojo",
        )
    ),
)
FIXES = (
    ("ruff", "check", "--fix-only"),
    ("ruff", "format"),
)


def mojo_files(root: Path) -> list[Path]:
    """List the Mojo sources under a copy of the project, in a fixed order."""
    return sorted(file for folder in MOJO_FOLDERS for file in (root / folder).rglob("*.mojo"))


def run(command: Sequence[str]) -> bool:
    """Run a tool at the root of the project, and tell whether it was content."""
    print(f"$ {' '.join(command)}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def format_mojo(files: Sequence[Path]) -> bool:
    """Format Mojo sources in place, and tell whether the formatter could read them all."""
    command = ["mojo", "format", "--quiet", "--line-length", LINE_LENGTH, *map(str, files)]
    return subprocess.run(command, check=False).returncode == 0


def check_mojo_format() -> bool:
    """Print what ``mojo format``, which has no mode that only checks, would change."""
    print("$ mojo format (of a copy)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in MOJO_FOLDERS:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        content = format_mojo(mojo_files(copy))
        for formatted in mojo_files(copy):
            name = str(formatted.relative_to(copy))
            before = (ROOT / name).read_text().splitlines(keepends=True)
            after = formatted.read_text().splitlines(keepends=True)
            difference = list(difflib.unified_diff(before, after, name, f"{name}, formatted"))
            sys.stdout.writelines(difference)
            content = content and not difference
    return content


def main() -> int:
    """Run every step, whatever the ones before it say; fail where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format the files in place")
    if parser.parse_args().fix:
        verdicts = [run(command) for command in FIXES]
        verdicts.append(format_mojo(mojo_files(ROOT)))
    else:
        verdicts = [run(command) for command in CHECKS]
        verdicts.append(check_mojo_format())
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
