"""Generates from a checkpoint in a process of its own; prints tokens/s, start-up time and peak memory.

    ./run python scripts/make_synthetic.py FOLDER          # a full-size 20b of random weights, 13.8 GB
    ./run python benchmarks/bench_generate.py FOLDER [--prompt-tokens N] [--new-tokens N] [--runs N]

The peak is the kernel's own high-water mark of the process (VmHWM: mapped file pages count), read while it runs, and
is compared with the size of the checkpoint plus 2 GB. Linux only, for that reason.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ALLOWED_BEYOND_WEIGHTS = 2_000_000_000
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Run:
    """One generation: rates in tokens/s, times in seconds, memory in bytes."""

    prompt_rate: float
    generation_rate: float
    seconds: float
    peak_resident: int


def main() -> int:
    """Measure, print a table, and tell by the exit code whether the memory bound held."""
    parser = argparse.ArgumentParser(description="Tokens/s and peak memory of generate.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt-tokens", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--new-tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="also write the results there")
    arguments = parser.parse_args()

    weights = sum(file.stat().st_size for file in arguments.folder.glob("*.safetensors"))
    # One byte, one token with the tokenizer of make_synthetic.py; others make fewer tokens of it.
    prompt = ("the quick brown fox jumps over the lazy dog " * arguments.prompt_tokens)[
        : arguments.prompt_tokens
    ]
    runs = [measure(arguments.folder, prompt, arguments.new_tokens) for _ in range(arguments.runs)]
    peak = max(run.peak_resident for run in runs)
    rows = {
        "prompt, tokens/s": [run.prompt_rate for run in runs],
        "generation, tokens/s": [run.generation_rate for run in runs],
        "command, s": [run.seconds for run in runs],
        "peak resident, GB": [run.peak_resident / 1e9 for run in runs],
    }
    print(f"{'':24}{'min':>10}{'median':>10}{'max':>10}")
    for name, values in rows.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:24}{low:10.2f}{middle:10.2f}{high:10.2f}")
    bound = weights + ALLOWED_BEYOND_WEIGHTS
    print(f"weights {weights / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, bound {bound / 1e9:.2f} GB")
    if arguments.json:
        report = {"weights": weights, "runs": [asdict(run) for run in runs]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if peak <= bound else 1


def measure(folder: Path, prompt: str, new_tokens: int) -> Run:
    """Run the command once, watching its memory."""
    command = [sys.executable, "-m", "gpt_oss_mxfp4", "generate", "--model", str(folder)]
    command += ["--prompt", prompt, "--max-new-tokens", str(new_tokens)]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages)
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_resident(process.pid))
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - begin
        messages.seek(0)
        told = messages.read()
    if process.returncode != 0:
        sys.exit(f"bench_generate: the command failed\n{told}")
    rates = re.search(r"prompt: .*?, ([\d.]+) tokens/s; generation: .*?, ([\d.]+) tokens/s", told)
    if rates is None:
        sys.exit(f"bench_generate: too few tokens to time\n{told}")
    return Run(float(rates[1]), float(rates[2]), seconds, peak)


def peak_resident(pid: int) -> int:
    """The high-water mark of a process so far, or 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    mark = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(mark[1]) * 1024 if mark else 0


if __name__ == "__main__":
    sys.exit(main())
