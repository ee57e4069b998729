"""What of the machine's memory processes can get, beside what weights take of it on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES, footprint
from gpt_oss_mxfp4.options import EngineOptions
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_memory() -> int:
    """Bytes that processes can still get: what the system says, within a container's limit."""
    try:
        lines = MEMINFO.read_text().splitlines()
        found = {name: value for name, _, value in (line.partition(":") for line in lines)}
        available = int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(available, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return available


def note_memory(
    checkpoint: Checkpoint, options: EngineOptions, available: int, progress: Progress
) -> None:
    """Tells where weights on a CPU, which are pages of mapped files, do not stay in memory.

    Args:
        checkpoint: what is to run.
        options: where.
        available: bytes of memory.
        progress: gets the note.
    """
    weights = footprint(checkpoint.config, checkpoint.entries, "cpu").weights
    room = max(available - ACTIVATION_BYTES, 0)
    if options.devices == "cpu" and weights > room:
        progress.note(
            f"weights take {bytes_text(weights)}, more than the {bytes_text(room)} of memory that are left: they are "
            "read from the disk again and again, which is slow"
        )
