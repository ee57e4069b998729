"""Pin requirements/*.txt anew from pyproject.toml, for all platforms and with hashes.

Versions that still fit are kept; ``--upgrade`` takes the newest. No address is written, so that
any index with the same files serves them.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ["--universal", "--generate-hashes", "--no-annotate", "--quiet"]
OPTIONS += ["--custom-compile-command", "./run requirements"]


def pin(name: str, *sources: str, stdin: str = "") -> None:
    """Write ``requirements/<name>.txt``, its versions equal to test.txt where that has them."""
    command = [
        "uv",
        "pip",
        "compile",
        *OPTIONS,
        *sources,
        "--output-file",
        f"requirements/{name}.txt",
    ]
    if name != "test":
        command += ["--constraint", "requirements/test.txt"]
    subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, input=stdin, text=True, check=True)


def main() -> None:
    """Pin the packages for tests, training, comparing and running, and those that make the environment."""
    pin("test", "pyproject.toml", "--extra", "test")
    pin("train", "pyproject.toml", "--extra", "train")
    pin("bench", "pyproject.toml", "--extra", "bench", "--constraint", "requirements/train.txt")
    pin("runtime", "pyproject.toml")
    build_system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    pin("build", "-", stdin="\n".join([*build_system["requires"], "uv"]))


if __name__ == "__main__":
    main()
