"""Whether what is asked for fits into the machine's memory: told before MAX is loaded, which does not tell it.

On a CPU, MAX takes as much KV cache as was asked for, up to nearly all memory there is, and fills it as requests come.
"""

from __future__ import annotations

import os
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES, CPU_MAX_LENGTH, footprint
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text
from gpt_oss_mxfp4.serving.options import ServeOptions

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(
    checkpoint: Checkpoint, options: ServeOptions, available: int, progress: Progress
) -> None:
    """Checks that the KV cache fits; a GPU's is MAX's to plan.

    Args:
        checkpoint: what is to be served.
        options: how.
        available: bytes of memory.
        progress: gets a note where weights do not fit beside it: their pages are dropped and read again.

    Raises:
        Refused: it does not fit.
    """
    if options.devices != "cpu":
        return
    taken = footprint(checkpoint.config, checkpoint.entries, "cpu", options.activations)
    length = options.max_length or min(CPU_MAX_LENGTH, checkpoint.config.max_position_embeddings)
    batch = options.cpu_batch_size
    sequence = taken.kv_cache // taken.tokens * length
    cache, room = batch * sequence, available - ACTIVATION_BYTES
    if cache > room:
        fits = max(room, 0) // sequence
        cure = f"{fits} of that length fit" if fits else "take a smaller --max-length"
        raise Refused(
            f"--max-batch-size, --max-length: the KV cache of {batch} sequences of {length} tokens takes "
            f"{bytes_text(cache)}, of which this machine has {bytes_text(max(room, 0))} left; {cure}"
        )
    if cache + taken.weights > room:
        progress.note(
            f"weights take {bytes_text(taken.weights)} and the KV cache up to {bytes_text(cache)}, more than the "
            f"{bytes_text(room)} that are left: weights may be read from the disk again and again; a smaller "
            "--max-batch-size or --max-length helps"
        )


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
