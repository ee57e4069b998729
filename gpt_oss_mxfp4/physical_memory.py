"""What of the machine's memory processes can get, and whether what is asked for fits into it.

Told before a model is loaded, as MAX does not tell it: on a CPU, MAX takes as much KV cache as was asked for, up to
nearly all memory the machine has, whatever a container may have of that and other processes already do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.footprint import footprint
from gpt_oss_mxfp4.options import EngineOptions, Refused
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text

MEMINFO = Path("/proc/meminfo")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that processes can still get: what the system says, within what is left of a container's limit."""
    try:
        available = _count(MEMINFO, "MemAvailable:") * 1024
    except (OSError, KeyError, ValueError):  # no Linux
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([available, *_left_to_groups()])


def _left_to_groups() -> Iterator[int]:
    """What limits leave to this process's control group and to those that hold it, of either version of cgroups."""
    try:
        lines = CGROUP_OF_PROCESS.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, used = CGROUP, "memory.max", "anon"
        elif "memory" in controllers.split(","):
            root, limit, used = CGROUP / "memory", "memory.limit_in_bytes", "total_rss"
        else:
            continue
        group = root / path.lstrip("/")
        # A container may see its own group as the root, whatever its path is called.
        for folder in (group, *group.parents):
            try:
                # Not all that is charged: that counts pages of files, which are dropped where memory is short.
                left = int((folder / limit).read_text()) - _count(folder / "memory.stat", used)
                yield max(left, 0)
            except (OSError, KeyError, ValueError):  # no such group, or one without a limit
                pass
            if folder == root:
                break


def _count(file: Path, name: str) -> int:
    """The number behind a name, of a file of the kernel's with one of each on a line."""
    return int(dict(line.split()[:2] for line in file.read_text().splitlines())[name])


def check_memory(
    checkpoint: Checkpoint,
    options: EngineOptions,
    tokens: int,
    asked: str,
    progress: Progress,
) -> None:
    """Checks that what MAX takes for itself fits; a GPU's memory is MAX's to plan.

    Args:
        checkpoint: what is to run.
        options: where and how.
        tokens: that the KV cache has room for, all sequences together.
        asked: the options that say so, and their numbers.
        progress: gets a note where weights do not fit beside it: their pages are dropped and read again.

    Raises:
        Refused: the KV cache and what else is not a file's pages do not fit.
    """
    if options.devices != "cpu":
        return
    taken = footprint(
        checkpoint.config,
        checkpoint.entries,
        "cpu",
        options.activations,
        options.dense_weights,
        tokens,
    )
    room = max(available_memory() - taken.activations - taken.rounded, 0)
    needed = taken.kv_cache + taken.tables
    if needed > room:
        fits = (room - taken.tables) * tokens // taken.kv_cache
        cure = f"{fits} tokens fit" if fits > 0 else "it needs more free memory"
        raise Refused(
            f"{asked} tokens take {bytes_text(needed)} of memory for the KV cache and the rotations, of which this "
            f"machine has {bytes_text(room)} left; {cure}"
        )
    if needed + taken.weights > room:
        progress.note(
            f"weights take {bytes_text(taken.weights)} and the KV cache with the rotations {bytes_text(needed)}, more "
            f"than the {bytes_text(room)} of memory that are left: weights may be read from the disk again and again, "
            "which is slow"
        )
