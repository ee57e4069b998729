"""How many CPU threads compute: as many as CPUs that the process may use.

MAX 26.7.0 makes one worker thread for each CPU of the process when it starts, and takes no number: the process aborts
where an InferenceSession gets ``num_threads`` and there is a CPU device already (NOTES F40). So the process is confined
to fewer CPUs, before MAX is imported. NumPy's, the tokenizer's and the compiler's threads are counted the same way, and
child processes inherit it. Nothing here imports MAX.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gpt_oss_mxfp4.options import Refused

THREADS_VARIABLE = "GPT_OSS_MXFP4_THREADS"
"""Environment variable that is ``--threads`` for MAX's own commands, read when they import this package's architecture:
before they make threads or worker processes. Read here and nowhere else."""

_TOPOLOGY = Path("/sys/devices/system/cpu")


def limit_threads(asked: int | None) -> None:
    """Confines this process to as many CPUs as threads are asked for; to be called before MAX is imported.

    Args:
        asked: number of threads, or None for what the environment says.

    Raises:
        Refused: there are not as many CPUs, or this system confines no process.
    """
    name, number = "--threads", asked
    if number is None:
        text = os.environ.get(THREADS_VARIABLE)
        if not text:
            return
        name, number = THREADS_VARIABLE, _whole_number(text)
    if not hasattr(os, "sched_setaffinity"):
        raise Refused(f"{name}: must be left out on this system, which confines no process to CPUs")
    allowed = os.sched_getaffinity(0)
    if not 1 <= number <= len(allowed):
        raise Refused(
            f"{name}: must be between 1 and {len(allowed)}, the CPUs that this process may use, got {number}"
        )
    chosen = sorted(allowed, key=_sibling_rank)[:number]
    try:
        for thread in os.listdir("/proc/self/task"):  # those that a library has started already
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread), chosen)
    except OSError as error:
        raise Refused(
            f"{name}: must be left out here, where a process may not be confined to CPUs ({error.strerror})"
        ) from error
    os.environ[THREADS_VARIABLE] = str(number)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused(f"{THREADS_VARIABLE}: must be a whole number, got {text!r}") from None


def _sibling_rank(cpu: int) -> tuple[int, int]:
    """Sorts CPUs so that a core's second hardware thread comes after every core's first."""
    try:
        text = (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        siblings = _cpus(text)
    except (OSError, ValueError):  # no such file in some containers
        return 0, cpu
    return sum(other < cpu for other in siblings), cpu


def _cpus(text: str) -> set[int]:
    """Reads the kernel's lists: "0,64" or "0-1"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
