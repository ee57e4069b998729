"""How many threads compute: refused where there are no such CPUs, and as many as asked for in MAX's pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import threads
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.threads import THREADS_VARIABLE, limit_threads

linux = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system confines no process to CPUs"
)


def run(code: str, **variables: str) -> str:
    """Runs in a process of its own, which may be confined."""
    code = f"import os; from gpt_oss_mxfp4.threads import limit_threads\n{code}"
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cpus() -> int:
    return len(os.sched_getaffinity(0))


@linux
@pytest.mark.parametrize("number", [0, -1, 10**6])
def test_a_number_of_threads_that_cannot_be_is_refused(number: int) -> None:
    message = f"^--threads: must be between 1 and {cpus()}, the CPUs that this process may use, got {number}$"
    with pytest.raises(Refused, match=message):
        limit_threads(number)


@linux
@pytest.mark.parametrize(
    ("value", "rule"), [("0", "between 1 and"), ("two", "a whole number, got 'two'")]
)
def test_the_variable_is_named_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, value: str, rule: str
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, value)
    with pytest.raises(Refused, match=f"^{THREADS_VARIABLE}: must be {rule}"):
        limit_threads(None)


def test_a_system_without_affinity_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(Refused, match=r"^--threads: must be left out on this system"):
        limit_threads(1)


@linux
def test_nothing_asked_for_changes_nothing() -> None:
    told = run("limit_threads(None); print(len(os.sched_getaffinity(0)))", **{THREADS_VARIABLE: ""})
    assert told == f"{cpus()}\n"


@linux
def test_an_option_outweighs_the_variable_and_holds_for_threads_and_children() -> None:
    code = (
        "import subprocess, threading, time\n"
        "thread = threading.Thread(target=time.sleep, args=(5,), daemon=True); thread.start()\n"
        "limit_threads(1); limit_threads(None)\n"
        "print(len(os.sched_getaffinity(0)), len(os.sched_getaffinity(thread.native_id)), flush=True)\n"
        "import sys; subprocess.run([sys.executable, '-c', 'import os; print(len(os.sched_getaffinity(0)))'])"
    )
    assert run(code, **{THREADS_VARIABLE: "100000"}) == "1 1\n1\n"


@linux
def test_cores_are_taken_before_their_second_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On such a machine 0 and 1 are one core, 2 and 3 another; of 7 nothing is known."""
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path)
    for cpu, siblings in enumerate(("0-1", "0-1", "2,3", "2,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert sorted([7, 3, 2, 1, 0], key=threads._sibling_rank) == [0, 2, 7, 1, 3]


COUNT_THREADS = """
import numpy as np
limit_threads(None)
from gpt_oss_mxfp4.quantize import quantize_array

def times():
    tasks = "/proc/self/task"
    return {t: int(open(f"{tasks}/{t}/schedstat").read().split()[0]) for t in os.listdir(tasks)}

x = np.ones((2048, 8192), np.float32)
quantize_array(x)
before = times()
for _ in range(10):
    quantize_array(x)
used = [time - before.get(thread, 0) for thread, time in times().items()]
print(sum(time > max(used) / 2 for time in used))
"""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_kernel_computes_on_as_many_threads(number: int) -> None:
    """Each has the same share; MAX's other threads have less than half of one."""
    if number > cpus():
        pytest.skip(f"needs {number} CPUs")
    assert run(COUNT_THREADS, **{THREADS_VARIABLE: str(number)}) == f"{number}\n"


def test_maxs_own_commands_end_in_one_line_where_the_variable_is_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gpt_oss_mxfp4.arch"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, THREADS_VARIABLE: "many"},
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"gpt_oss_mxfp4: {THREADS_VARIABLE}: must be a whole number, got 'many'\n"
    )
