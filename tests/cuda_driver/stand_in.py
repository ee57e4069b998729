"""The CUDA driver's functions without a GPU: called through ctypes as the driver's are, launches are emulated."""

from __future__ import annotations

import ctypes
import math
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cuda_driver import driver
from tests.ptx_emulator.block import DeadlockError
from tests.ptx_emulator.launch import run_grid
from tests.ptx_emulator.memory import SHARED_BYTES, GlobalMemory, MemoryAccessError
from tests.ptx_emulator.program import Program, parse_program
from tests.ptx_emulator.tensor_core import Mode

INVALID_VALUE, NO_DEVICE, INVALID_PTX, ILLEGAL_ADDRESS, UNKNOWN = 1, 100, 218, 700, 999
ERRORS = {
    INVALID_VALUE: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
    NO_DEVICE: (b"CUDA_ERROR_NO_DEVICE", b"no CUDA-capable device is detected"),
    INVALID_PTX: (b"CUDA_ERROR_INVALID_PTX", b"a PTX JIT compilation failed"),
    ILLEGAL_ADDRESS: (b"CUDA_ERROR_ILLEGAL_ADDRESS", b"an illegal memory access was encountered"),
    UNKNOWN: (b"CUDA_ERROR_UNKNOWN", b"unknown error"),
}

UNASKED_SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that a launch may have without the attribute."""

BLOCKS_AT_ONCE = 64
"""What it has room for, whatever they ask for."""


class Refusal(Exception):
    """A status that is not CUDA_SUCCESS."""


class StandIn:
    """One GPU's memory, modules and events; methods are named as the functions are.

    Launches and copies run at once, and take a millisecond each by the events.

    Args:
        devices: 0 where there is to be none.
    """

    def __init__(self, *, devices: int = 1) -> None:
        self.allocated: set[int] = set()
        self._devices = devices
        self._memory = GlobalMemory()
        self._programs: list[Program] = []
        self._dynamic: dict[int, int] = {}
        self._fault = 0
        self._milliseconds = 0.0
        self._events: list[float] = []

    def library(self) -> Any:
        """Gives the functions, as ctypes has those of a library."""
        return SimpleNamespace(
            **{
                name: ctypes.CFUNCTYPE(ctypes.c_int, *types)(self._give_status(name))
                for name, types in driver.SIGNATURES.items()
            }
        )

    def _give_status(self, name: str) -> Callable[..., int]:
        def function(*arguments: Any) -> int:
            try:
                # A context that has seen a fault gives nothing else any more.
                if self._fault and not name.startswith("cuGetError"):
                    return self._fault
                getattr(self, name)(*arguments)
            except Refusal as refusal:
                return int(refusal.args[0])
            except Exception:  # ctypes would take it for success
                traceback.print_exc()
                return UNKNOWN
            return self._fault if name == "cuCtxSynchronize" else 0

        return function

    def _bytes(self, address: int, size: int) -> NDArray[np.uint8]:
        if not size:
            return np.zeros(0, np.uint8)
        try:
            buffer, (offset,) = self._memory.place(np.array([address], np.uint64), 1)
        except MemoryAccessError:
            raise Refusal(INVALID_VALUE) from None
        if offset + size > buffer.size:
            raise Refusal(INVALID_VALUE)
        return buffer[offset : offset + size]

    def _program(self, function: int) -> Program:
        return self._programs[function - 1]

    def cuInit(self, flags: int) -> None:
        if not self._devices:
            raise Refusal(NO_DEVICE)

    def cuDriverGetVersion(self, version: Any) -> None:
        version[0] = 13000

    def cuGetErrorName(self, status: int, text: Any) -> None:
        text[0] = ERRORS[status][0]

    def cuGetErrorString(self, status: int, text: Any) -> None:
        text[0] = ERRORS[status][1]

    def cuDeviceGet(self, device: Any, ordinal: int) -> None:
        device[0] = ordinal

    def cuDeviceGetName(self, text: Any, size: int, device: int) -> None:
        ctypes.memmove(text, b"stand-in\0", 9)

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        value[0] = {driver.MULTIPROCESSOR_COUNT: 3}[attribute]

    def cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        context[0] = 1

    def cuCtxSetCurrent(self, context: int) -> None:
        pass

    def cuCtxSynchronize(self) -> None:
        pass

    def cuMemAlloc_v2(self, address: Any, size: int) -> None:
        address[0] = self._memory.add("allocated", np.full(size, 0xAA, np.uint8))
        self.allocated.add(address[0])

    def cuMemFree_v2(self, address: int) -> None:
        if address not in self.allocated:
            raise Refusal(INVALID_VALUE)
        self.allocated.remove(address)

    def cuMemcpyHtoD_v2(self, target: int, source: int, size: int) -> None:
        self._bytes(target, size)[:] = np.frombuffer(ctypes.string_at(source, size), np.uint8)

    def cuMemcpyDtoH_v2(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, self._bytes(source, size).tobytes(), size)

    def cuMemcpyDtoDAsync_v2(self, target: int, source: int, size: int, stream: None) -> None:
        self._bytes(target, size)[:] = self._bytes(source, size)
        self._milliseconds += 1

    def cuModuleLoadDataEx(
        self, module: Any, image: bytes, count: int, options: Any, values: Any
    ) -> None:
        try:
            self._programs.append(parse_program(image.decode()))
        except ValueError as error:
            given = {options[i]: values[i] for i in range(count)}
            text = f"ptxas fatal: {error}\0".encode()[: given[driver.ERROR_LOG_BUFFER_SIZE_BYTES]]
            ctypes.memmove(given[driver.ERROR_LOG_BUFFER], text, len(text))
            raise Refusal(INVALID_PTX) from None
        module[0] = len(self._programs)

    def cuModuleGetFunction(self, function: Any, module: int, name: bytes) -> None:
        if self._program(module).name != name.decode():
            raise Refusal(INVALID_VALUE)
        function[0] = module

    def cuFuncGetAttribute(self, value: Any, attribute: int, function: int) -> None:
        value[0] = {driver.NUM_REGS: 80, driver.LOCAL_SIZE_BYTES: 0}[attribute]

    def cuFuncSetAttribute(self, function: int, attribute: int, value: int) -> None:
        statically = self._program(function).shared_bytes
        if attribute != driver.MAX_DYNAMIC_SHARED_SIZE_BYTES or value + statically > SHARED_BYTES:
            raise Refusal(INVALID_VALUE)
        self._dynamic[function] = value

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(
        self, blocks: Any, function: int, threads: int, shared_bytes: int
    ) -> None:
        blocks[0] = SHARED_BYTES // max(shared_bytes, 1)

    def cuLaunchKernelEx(self, config: Any, function: int, pointers: Any, extra: None) -> None:
        launch = config[0]
        grid, (threads, *others), shared_bytes = launch.grid, launch.block, launch.shared_bytes
        program = self._program(function)
        if not all(grid) or threads > (program.threads or 1024) or others != [1, 1]:
            raise Refusal(INVALID_VALUE)
        attributes = {x.id: list(x.value) for x in launch.attributes[: launch.attribute_count]}
        attributes.pop(driver.PROGRAMMATIC_STREAM_SERIALIZATION, None)
        cluster, *others = attributes.pop(driver.CLUSTER_DIMENSION, [1, 1, 1])
        if attributes or grid[0] % cluster or others != [1, 1]:
            raise Refusal(INVALID_VALUE)
        if shared_bytes > self._dynamic.get(function, UNASKED_SHARED_BYTES):
            raise Refusal(INVALID_VALUE)
        parameters = [
            int.from_bytes(ctypes.string_at(pointers[i], size), "little")
            for i, size in enumerate(program.parameters.values())
        ]
        self._milliseconds += 1
        try:
            run_grid(
                program,
                self._memory,
                parameters,
                grid=tuple(grid),
                threads=threads,
                shared_bytes=shared_bytes,
                cluster=cluster,
                at_once=cluster == 1 and math.prod(grid) <= BLOCKS_AT_ONCE,
                mode=Mode.LAZY,
            )
        except MemoryAccessError:
            self._fault = ILLEGAL_ADDRESS
        except DeadlockError:
            while True:
                time.sleep(1)

    def cuEventCreate(self, event: Any, flags: int) -> None:
        self._events.append(0)
        event[0] = len(self._events)

    def cuEventRecord(self, event: int, stream: None) -> None:
        self._events[event - 1] = self._milliseconds

    def cuEventElapsedTime(self, milliseconds: Any, first: int, last: int) -> None:
        milliseconds[0] = self._events[last - 1] - self._events[first - 1]
