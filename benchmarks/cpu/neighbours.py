"""What other processes take of the machine while something is timed, and waiting until they take little.

Linux only: elsewhere nothing is known, and nothing is waited for.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IDLE = 0.1
"""Share of the machine that the system's own work may take."""

IDLE_SECONDS = 3
"""How long it has to have been no more."""


@dataclass(frozen=True)
class Processors:
    """Seconds that all processors together have spent since some time in the past.

    Args:
        busy: running anything.
        all: running anything or idle.
        own: running this process's children that have ended.
    """

    busy: float
    all: float
    own: float


def read_processors() -> Processors | None:
    """Reads the system's counters; None where there are none."""
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in user already.
    ticks = [int(field) for field in line.split()[1:9]]
    second = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = sum(ticks)
    return Processors((total - idle) / second, total / second, usage.ru_utime + usage.ru_stime)


def others_share(before: Processors | None, after: Processors | None) -> float | None:
    """Share of the machine's time that others took between two readings, a child having ended in between."""
    if before is None or after is None or after.all == before.all:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / (after.all - before.all))


def wait_until_idle(
    patience: float,
    read: Callable[[], Processors | None] = read_processors,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Waits until other processes take little.

    Args:
        patience: most seconds to wait.
        read: gives the counters.
        sleep: waits so many seconds.

    Returns:
        Whether they do.
    """
    idle, before = 0, read()
    for _ in range(int(patience)):
        sleep(1)
        after = read()
        share = others_share(before, after)
        if share is None:
            return False
        idle, before = idle + 1 if share <= IDLE else 0, after
        if idle == IDLE_SECONDS:
            return True
    return False
