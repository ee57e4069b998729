"""Times from command to first token, in processes of their own, for a model that was compiled before.

    ./run python benchmarks/bench_start.py [FOLDER] [--runs N] [--threads N]

The demo model unless a folder is named. One run comes first, to compile and to bring the weights into the page cache,
and is not counted. On a machine with other work on it the time that the main thread waited for a CPU says how much of
a run is not the command's own. Linux only, for that number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

PROMPT = "What is 4587 + 968?"


@dataclass(frozen=True)
class Start:
    """One start, in seconds.

    Args:
        first_token: from the start of the process to the first token's text.
        waiting: of that, how long the main thread was ready to run and got no CPU.
        own: the rest.
    """

    first_token: float
    waiting: float
    own: float


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Time from command to first token.")
    parser.add_argument("folder", type=Path, nargs="?", help="default: the demo model")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="default: as generate")
    parser.add_argument("--json", type=Path, help="also write the results there")
    arguments = parser.parse_args()

    command = [sys.executable, "-m", "gpt_oss_mxfp4", "generate", "--raw", "--max-new-tokens", "1"]
    command += ["--prompt", PROMPT]
    if arguments.folder:
        command += ["--model", str(arguments.folder)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    starts = [measure(command) for _ in range(arguments.runs)]
    print(f"{'seconds':24}{'min':>10}{'median':>10}{'max':>10}")
    for field in fields(Start):
        values = [getattr(start, field.name) for start in starts]
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{field.name.replace('_', ' '):24}{low:10.2f}{middle:10.2f}{high:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(start) for start in starts], indent=2) + "\n")
    return 0


def measure(command: list[str]) -> Start:
    """Run the command once, up to its first text."""
    begin = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdout
        process.stdout.read(1)
        seconds = time.monotonic() - begin
        schedule = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text().split()
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    waiting = int(schedule[1]) / 1e9
    return Start(seconds, waiting, seconds - waiting)


if __name__ == "__main__":
    sys.exit(main())
