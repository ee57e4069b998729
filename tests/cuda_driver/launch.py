"""One launch on the GPU: copies between guards, in a process of their own."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cuda_driver.driver import CudaError, Driver, Kernel, Number, open_library

Argument = NDArray[np.generic] | Number

GUARD_BYTES = 1 << 16
"""Before and behind each array; a multiple of what allocators align to."""

GUARD = 0xFE
"""No offset, id or count, and 1e38 as a bfloat16: what is read from a guard does not go unnoticed either."""


class GuardError(Exception):
    """A kernel wrote outside of its arrays."""


def launch_guarded(
    driver: Driver,
    kernel: Kernel,
    arguments: Sequence[Argument],
    *,
    grid: tuple[int, int, int],
    threads: int,
    shared_bytes: int,
    cluster: int = 1,
) -> None:
    """Runs a kernel on copies of arrays and copies them back; an error leaves them allocated, and the context unsure.

    Args:
        driver: the GPU.
        kernel: what to run.
        arguments: arrays, read and written in place, and numbers.
        grid: blocks in x, y and z.
        threads: of a block; what the module says where 0.
        shared_bytes: dynamic shared memory of a block.
        cluster: blocks along x that share their shared memory.

    Raises:
        CudaError: the launch fails, or the kernel does.
        GuardError: it wrote before or behind an array.
    """
    numbers: list[Number] = []
    copies: list[tuple[int, int, NDArray[Any]]] = []
    for position, argument in enumerate(arguments):
        if not isinstance(argument, np.ndarray):
            numbers.append(argument)
            continue
        if not argument.flags.c_contiguous:
            raise ValueError(f"{kernel.name}: argument {position} must be contiguous")
        whole = np.full(argument.nbytes + 2 * GUARD_BYTES, GUARD, np.uint8)
        whole[GUARD_BYTES:-GUARD_BYTES] = argument.reshape(-1).view(np.uint8)
        address = driver.allocate(whole.size)
        driver.upload(address, whole)
        numbers.append(address + GUARD_BYTES)
        copies.append((position, address, argument))
    kernel.prepare(
        numbers, grid=grid, threads=threads, shared_bytes=shared_bytes, cluster=cluster
    )()
    driver.synchronize(of=kernel.name)
    for position, address, array in copies:
        whole = np.empty(array.nbytes + 2 * GUARD_BYTES, np.uint8)
        driver.download(address, whole)
        _check_guards(f"{kernel.name}: argument {position}", whole)
        array.reshape(-1).view(np.uint8)[:] = whole[GUARD_BYTES:-GUARD_BYTES]
        driver.free(address)


def _check_guards(name: str, whole: NDArray[np.uint8]) -> None:
    size = whole.size - 2 * GUARD_BYTES
    places = np.flatnonzero(whole != GUARD) - GUARD_BYTES
    outside = places[(places < 0) | (places >= size)]
    if outside.size:
        raise GuardError(f"{name}: byte {outside[0]} of {size} was written")


class Process:
    """A process that launches, begun anew after each fault.

    A kernel that faults leaves its process no context to go on with, and one that never ends can only be ended with it:
    neither is to cost the tests behind it anything.

    Args:
        open_library: gives the driver's library, in that process.
        seconds: how long one launch may take, the first one's compilation included.
    """

    def __init__(self, open_library: Callable[[], Any] = open_library, seconds: float = 20) -> None:
        self._open_library, self._seconds = open_library, seconds
        self._running: tuple[Any, Connection] | None = None

    def launch(self, ptx: str, arguments: Sequence[Argument], **sizes: Any) -> None:
        """Runs a kernel, as `launch` does."""
        process, connection = self._running = self._running or self._start()
        try:
            connection.send((ptx, list(arguments), sizes))
            if not connection.poll(self._seconds):
                raise CudaError(f"a kernel has not ended within {self._seconds} s")
            result = connection.recv()
        except (EOFError, OSError):
            process.join()
            result = CudaError(f"the launching process ended with {process.exitcode}")
        except CudaError as error:
            result = error
        if isinstance(result, Exception):
            self.close()
            raise result
        for argument, written in zip(arguments, result, strict=True):
            if isinstance(argument, np.ndarray):
                argument[...] = written

    def close(self) -> None:
        """Ends the process."""
        if self._running:
            process, connection = self._running
            process.kill()
            process.join()
            connection.close()
            self._running = None

    def _start(self) -> tuple[Any, Connection]:
        # A forked process would share what this one may know of a driver already.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._open_library), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _serve(connection: Connection, open_library: Callable[[], Any]) -> None:
    """Launches what it is sent, and sends back the arguments or what went wrong."""
    driver: Driver | None = None
    kernels: dict[str, Kernel] = {}
    while True:
        ptx, arguments, sizes = connection.recv()
        try:
            driver = driver or Driver(open_library())
            kernel = kernels.get(ptx) or kernels.setdefault(ptx, Kernel(driver, ptx))
            launch_guarded(driver, kernel, arguments, **sizes)
            connection.send(arguments)
        except (CudaError, GuardError, ValueError) as error:
            connection.send(error)


_process = functools.cache(Process)


def launch(
    ptx: str,
    arguments: Sequence[Argument],
    *,
    grid: tuple[int, int, int],
    threads: int = 0,
    shared_bytes: int = 0,
    cluster: int = 1,
) -> None:
    """Runs a kernel on the first GPU.

    Args:
        ptx: the kernel's module.
        arguments: arrays, which the kernel reads and writes in place, and numbers.
        grid: blocks in x, y and z.
        threads: of a block; what the module says unless given.
        shared_bytes: dynamic shared memory of a block.
        cluster: blocks along x that share their shared memory.

    Raises:
        CudaError: no driver, no GPU, no compilation, no launch, a fault, no end.
        GuardError: the kernel wrote before or behind an array.
    """
    open_library()  # what is missing is said here, without a process
    _process().launch(
        ptx, arguments, grid=grid, threads=threads, shared_bytes=shared_bytes, cluster=cluster
    )
