"""Loads a server of the demo model with everything that clients do, right and wrong, and watches its memory.

    python scripts/soak.py --minutes 10

Each client takes one turn after the other, drawn by chance: a chat, whole or streamed; a completion; a stream that is
left; a request that is wrong. Right ones ask for the likeliest tokens, so that each prompt has one answer, the one that
it got first. The exit code is 1 where an answer was another, a status not the one expected, or the server wrote what is
no line of its log. Memory is resident memory of the server and all its children; a table says how it went, and how
much more it was in the last third of the time than in the second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from scripts.soak_load import Load

START_SECONDS = 600
OWN_LINES = ("time=", "loading MAX", "compiling ", "serving ", "stopping: ", "stopped")

MOST_GROWTH = 25e6
"""Bytes by which memory may be larger in the last third than in the second; 11 MB were seen in ten minutes."""

Memory = list[tuple[float, int]]
"""Seconds since the begin, and bytes of all processes of the server then."""


def processes(parent: int) -> list[int]:
    """A process and all below it."""
    found = [parent]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # the thread has just ended
                continue
    return found


def resident(parent: int) -> int:
    """Bytes of a process and all below it."""
    pages = 0
    for process in processes(parent):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:  # it has just ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


async def soak(
    url: str, process: int, minutes: float, clients: int, key: str = "-"
) -> tuple[Load, Memory]:
    """Runs the load, and prints a line now and then.

    Args:
        url: of the server.
        process: the server's.
        minutes: how long.
        clients: at once.
        key: that requests carry.

    Returns:
        What came of the turns, and memory over time.
    """
    memory: Memory = []
    begin = time.monotonic()
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=300, limits=limits
    ) as client:
        load = Load(client)
        until = begin + 60 * minutes
        tasks = [asyncio.create_task(load.take_turns(seed, until)) for seed in range(clients)]
        print(f"{'s':>6} {'turns':>7} {'faults':>6} {'MB':>8}", flush=True)
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=max(1, 60 * minutes / 40))
            memory.append((time.monotonic() - begin, resident(process)))
            seconds, size = memory[-1]
            print(
                f"{seconds:6.0f} {load.turns.total():7} {len(load.faults):6} {size / 1e6:8.0f}",
                flush=True,
            )
        await asyncio.gather(*tasks)
    return load, memory


def growth(memory: Memory) -> float:
    """Bytes by which the median of the last third is above that of the second."""
    end = memory[-1][0]
    second = [size for seconds, size in memory if end / 3 < seconds <= 2 * end / 3]
    last = [size for seconds, size in memory if seconds > 2 * end / 3]
    return statistics.median(last) - statistics.median(second or last)


def main(argv: Sequence[str] | None = None) -> int:
    """Starts a server, loads it, and ends it.

    Returns:
        1 where anything was not as expected.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args(argv)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gpt_oss_mxfp4", "serve", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([*command, "--max-length", "1024"], stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while server.poll() is None and time.monotonic() < deadline:
                log.seek(0)
                if "\nserving " in log.read():
                    break
                time.sleep(0.2)
            else:
                log.seek(0)
                print("the server did not start:", *log.read().splitlines()[-10:], sep="\n")
                return 1
            url = f"http://127.0.0.1:{port}"
            load, memory = asyncio.run(soak(url, server.pid, arguments.minutes, arguments.clients))
        finally:
            server.terminate()
            code = server.wait()
        log.seek(0)
        strange = [line for line in log if not line.startswith(OWN_LINES) or " status=5" in line]
    for fault in (*load.faults[:10], *strange[:20]):
        print(fault.rstrip())
    print(
        f"{load.turns.total()} turns ({', '.join(f'{n} {kind}' for kind, n in sorted(load.turns.items()))}), "
        f"{len(load.faults)} faults, {len(strange)} strange lines, exit code {code}, "
        f"memory {growth(memory) / 1e6:+.0f} MB in the last third"
    )
    grown = growth(memory) > MOST_GROWTH
    return int(bool(load.faults or strange or code or grown))


if __name__ == "__main__":
    sys.exit(main())
