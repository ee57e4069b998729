"""Runs a conversion, killed before and after each step that changes the disk, then again to its end.

    python -m tests.gpt_oss_mxfp4.convert.kill_everywhere SOURCE FOLDER ARGUMENT...

Each run is a fork of this process, which has imported everything. Prints how many points there were; ends with 1 where
an output is not the uninterrupted one.
"""

import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4 import cli

STEPS = (
    (os, "fsync"),
    (os, "mkdir"),
    (os, "open"),
    (os, "unlink"),
    (os, "rmdir"),
    (pathlib.Path, "mkdir"),
    (pathlib.Path, "open"),
    (pathlib.Path, "rename"),
    (pathlib.Path, "unlink"),
    (pathlib.Path, "iterdir"),
    (shutil, "copyfile"),
)


def dies_at(point: int) -> None:
    """Has the process killed before (even) or after (odd) a step."""
    count = 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            before, after = count, count + 1
            count += 2
            if before == point:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if after == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    os.fsync = lambda fd: None  # a kill, unlike a power cut, loses nothing that was written
    for owner, name in STEPS:
        setattr(owner, name, deadly(getattr(owner, name)))


def run(arguments: list[str], point: int | None = None) -> int:
    """Runs the command in a fork; gives its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        if point is not None:
            dies_at(point)
        else:
            os.fsync = lambda fd: None
        os._exit(cli.main(["convert", *arguments]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main() -> int:
    """Tries every point until one is beyond the last."""
    source, folder, *rest = sys.argv[1:]
    whole = Path(folder) / "whole"
    assert run([source, "--output", str(whole), *rest]) == 0
    want = contents(whole)
    point = 0
    while True:
        output = Path(folder) / f"output-{point}"
        arguments = [source, "--output", str(output), *rest]
        code = run(arguments, point)
        if output.exists() and contents(output) != want:
            print(f"point {point}: what is there is not whole")
            return 1
        if code == 0:
            break
        if code != -signal.SIGKILL:
            print(f"point {point}: ended with {code}")
            return 1
        # Once the output is in its place and the journal gone, the run that was killed had nothing left to do.
        done = output.exists()
        if (code := run(arguments)) not in ((0, 2) if done else (0,)):
            print(f"point {point}: the run after the kill ended with {code}")
            return 1
        if contents(output) != want:
            print(f"point {point}: the run after the kill gave other files")
            return 1
        left = [
            path.name for path in Path(folder).iterdir() if path.name not in ("whole", output.name)
        ]
        if left:
            print(f"point {point}: {left} is left")
            return 1
        shutil.rmtree(output)
        point += 1
    print(point)
    return 0


if __name__ == "__main__":
    sys.exit(main())
