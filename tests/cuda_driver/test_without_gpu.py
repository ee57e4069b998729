"""The driver that runs no kernels, late: work happens when it is waited for, and what changed before is told of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda_driver import without_gpu

pytestmark = without_gpu.needs_compiler

PROGRAM = """
import ctypes
import sys

cuda = ctypes.CDLL(sys.argv[1])
change, pinned, wait = (word == "True" for word in sys.argv[2:])
SIZE, STREAM = 64, ctypes.c_void_p(16)
device, source, event = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
cuda.cuMemAlloc_v2(ctypes.byref(device), ctypes.c_size_t(SIZE))
cuda.cuMemHostAlloc(ctypes.byref(source), ctypes.c_size_t(SIZE), 0)
buffer = ctypes.create_string_buffer(SIZE)
if not pinned:
    source = ctypes.c_void_p(ctypes.addressof(buffer))
ctypes.memset(source, 1, SIZE)
cuda.cuEventCreate(ctypes.byref(event), 0)
cuda.cuMemcpyHtoDAsync_v2(device, source, ctypes.c_size_t(SIZE), STREAM)
cuda.cuEventRecord(event, STREAM)
assert cuda.cuEventQuery(event) == 600, "it may be over already"
if change:
    ctypes.memset(source, 2, SIZE)
if wait:
    cuda.cuEventSynchronize(event)
print(ctypes.string_at(device, SIZE)[0])
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    without_gpu.build(folder)
    return folder / "libcuda.so.1"


@pytest.mark.parametrize(
    ("change", "pinned", "wait", "arrived", "told"),
    [
        (False, True, False, 0, False),
        (False, True, True, 1, False),
        (True, True, True, 2, True),
        (True, False, True, 1, False),
    ],
)
def test_a_copy_is_made_when_it_is_waited_for_of_what_lies_in_pinned_memory_then(
    driver: Path,
    tmp_path: Path,
    change: bool,
    pinned: bool,
    wait: bool,
    arrived: int,
    told: bool,
) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(driver), str(change), str(pinned), str(wait)],
        capture_output=True,
        text=True,
        check=True,
        env={"WITHOUT_GPU_LATE": "1", "WITHOUT_GPU_LOG": str(log)},
    )
    assert int(done.stdout) == arrived
    assert ("changed: 64 bytes" in (log.read_text() if log.exists() else "")) == told
