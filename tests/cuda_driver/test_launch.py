"""Launches through the driver's functions: a stand-in for the driver runs what arrives in the emulator."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.cuda_driver import launch as launch_module
from tests.cuda_driver.driver import SIGNATURES, CudaError, Driver, Kernel, open_library, pack
from tests.cuda_driver.launch import GUARD_BYTES, GuardError, Process, launch_guarded
from tests.cuda_driver.stand_in import StandIn

HEAD = """
.version 8.5
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry scale(
    .param .u64 .ptr .align 1 y,
    .param .u64 .ptr .align 1 x,
    .param .b32 by,
    .param .b64 offset
)
.maxntid 32
{
    .reg .b32 %r<9>;
    .reg .b64 %rd<9>;
    .reg .f32 %f<9>;
    ld.param.b64 %rd0, [y];
    ld.param.b64 %rd1, [x];
    ld.param.b32 %r1, [by];
    ld.param.b64 %rd3, [offset];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd2, %r0, 4;
    add.s64 %rd0, %rd0, %rd2;
    add.s64 %rd1, %rd1, %rd2;
    add.s64 %rd0, %rd0, %rd3;
"""
SCALE = f"""{HEAD}
    ld.global.b32 %f1, [%rd1];
    mov.b32 %f2, %r1;
    mul.f32 %f1, %f1, %f2;
    st.global.b32 [%rd0], %f1;
    ret;
}}
"""
"""y[thread + offset / 4] = x[thread] * by."""
ENDLESS = f"{HEAD} bar.sync 1, 64; ret; }}"
"""Waits for twice as many threads as there are."""
SHARED = SCALE.replace(
    "ret;",
    """
    mov.u32 %r3, memory;
    shl.b32 %r4, %r0, 2;
    add.s32 %r3, %r3, %r4;
    st.shared.b32 [%r3+65408], %r0;
    ret;
""",
)
"""Also uses 64 KiB of shared memory."""

X = np.arange(32, dtype=np.float32)


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


def scale(
    stand_in: StandIn, ptx: str = SCALE, *, offset: int = 0, threads: int = 0, shared_bytes: int = 0
) -> Any:
    y, driver = np.zeros(32, np.float32), Driver(stand_in.library())
    launch_guarded(
        driver,
        Kernel(driver, ptx),
        [y, X, np.float32(2.5), offset],
        grid=(1, 1, 1),
        threads=threads,
        shared_bytes=shared_bytes,
    )
    return y


def test_arrays_and_numbers_arrive_and_come_back(stand_in: StandIn) -> None:
    np.testing.assert_array_equal(scale(stand_in), 2.5 * X)
    assert not stand_in.allocated


@pytest.mark.parametrize("offset", [-4, 4, GUARD_BYTES, -GUARD_BYTES])
def test_a_write_outside_of_an_array_is_seen(stand_in: StandIn, offset: int) -> None:
    byte = offset if offset < 0 else max(128, offset)
    with pytest.raises(GuardError, match=f"scale: argument 0: byte {byte} of 128 was written"):
        scale(stand_in, offset=offset)


def test_a_fault_is_named_and_all_that_follows_fails(stand_in: StandIn) -> None:
    fault = r"CUDA_ERROR_ILLEGAL_ADDRESS \(700\): an illegal memory access was encountered"
    with pytest.raises(CudaError, match=f"^scale: cuCtxSynchronize: {fault}$"):
        scale(stand_in, offset=1 << 40)
    with pytest.raises(CudaError, match=f"^cuInit: {fault}$"):
        scale(stand_in)


def test_what_the_compiler_says_is_in_the_error(stand_in: StandIn) -> None:
    with pytest.raises(CudaError) as caught:
        Kernel(Driver(stand_in.library()), SCALE.replace("ret;\n}", "ret;"))
    assert str(caught.value) == (
        "scale: cuModuleLoadDataEx: CUDA_ERROR_INVALID_PTX (218): a PTX JIT compilation failed\n"
        "ptxas fatal: the entry's body has no end"
    )


@pytest.mark.parametrize("asked", [{"threads": 64}, {"shared_bytes": 232449}])
def test_a_launch_that_is_refused_is_an_error(stand_in: StandIn, asked: Any) -> None:
    with pytest.raises(CudaError, match=r"^scale: cu\w+: CUDA_ERROR_INVALID_VALUE \(1\)"):
        scale(stand_in, **asked)


def test_shared_memory_past_48_kib_is_asked_for(stand_in: StandIn) -> None:
    np.testing.assert_array_equal(scale(stand_in, SHARED, shared_bytes=65536), 2.5 * X)
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        scale(stand_in, SHARED, shared_bytes=65532)


@pytest.mark.parametrize(
    ("size", "argument", "want"),
    [
        (4, np.float32(1), b"\0\0\x80\x3f"),
        (4, -2, b"\xfe\xff\xff\xff"),
        (8, -2, b"\xfe" + 7 * b"\xff"),
        (4, 2**32 - 1, 4 * b"\xff"),
        (8, 1 << 40, b"\0\0\0\0\0\1\0\0"),
    ],
)
def test_a_parameter_has_its_size(size: int, argument: Any, want: bytes) -> None:
    assert pack("p", size, argument) == want


@pytest.mark.parametrize(
    ("size", "argument"), [(8, np.float32(1)), (4, 2**32), (4, -(2**31) - 1), (4, 1 << 40)]
)
def test_what_has_another_size_is_refused(size: int, argument: Any) -> None:
    with pytest.raises(ValueError, match=r"^p must (fit|be a number of)"):
        pack("p", size, argument)


def test_no_driver_and_no_gpu_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CudaError, match=r"^cuInit: CUDA_ERROR_NO_DEVICE \(100\)[^\n]*$"):
        Driver(StandIn(devices=0).library())

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    no_driver = r"^no NVIDIA driver on this machine: libcuda\.so\.1: cannot open [^\n]*$"
    with pytest.raises(CudaError, match=no_driver):
        open_library()
    with pytest.raises(CudaError, match=no_driver):
        launch_module.launch(SCALE, [], grid=(1, 1, 1))


def test_the_library_is_called_with_the_types_that_the_stand_in_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Mock())
    library = open_library()
    for name, types in SIGNATURES.items():
        assert getattr(library, name).argtypes == types


def open_stand_in() -> Any:
    return StandIn().library()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process(open_stand_in, seconds=600)
    yield process
    process.close()


def test_a_process_outlives_a_fault_and_one_that_never_ends(process: Process) -> None:
    sizes = {"grid": (1, 1, 1), "threads": 0, "shared_bytes": 0}
    run: Callable[[str, int], None] = functools.partial(_run, process, sizes)
    run(SCALE, 0)
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        run(SCALE, 1 << 40)
    run(SCALE, 0)
    with pytest.raises(GuardError, match="byte 128 of 128"):
        run(SCALE, 4)
    with pytest.raises(ValueError, match="offset must fit"):
        run(SCALE, 1 << 70)
    run(SCALE, 0)
    process._seconds = 0.5
    with pytest.raises(CudaError, match=r"a kernel has not ended within 0\.5 s"):
        run(ENDLESS, 0)
    process._seconds = 600
    run(SCALE, 0)


def _run(process: Process, sizes: dict[str, Any], ptx: str, offset: int) -> None:
    y = np.zeros(32, np.float32)
    process.launch(ptx, [y, X, np.float32(3), offset], **sizes)
    np.testing.assert_array_equal(y, 3 * X)
