"""The CUDA driver: memory, modules and launches on the first GPU, and events that time them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator.program import parse_head

Number = np.float32 | int
Address = ctypes.c_uint64


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute, whose value is a union of 64 bytes: here one number, or three."""

    _fields_ = (("id", c_int), ("pad", c_char * 4), ("value", c_uint * 3), ("rest", c_char * 52))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared_bytes", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(LaunchAttribute)),
        ("attribute_count", c_uint),
    )


SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (POINTER(c_char), c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxSynchronize": (),
    "cuMemAlloc_v2": (POINTER(Address), c_size_t),
    "cuMemFree_v2": (Address,),
    "cuMemcpyHtoD_v2": (Address, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, Address, c_size_t),
    "cuMemcpyDtoDAsync_v2": (Address, Address, c_size_t, c_void_p),
    "cuModuleLoadDataEx": (
        *(POINTER(c_void_p), c_char_p, c_uint),
        *(POINTER(c_int), POINTER(c_void_p)),
    ),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuFuncGetAttribute": (POINTER(c_int), c_int, c_void_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (POINTER(c_int), c_void_p, c_int, c_size_t),
    "cuLaunchKernelEx": (*(POINTER(LaunchConfig), c_void_p, POINTER(c_void_p), POINTER(c_void_p)),),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
}
"""Arguments of each function; all give a status. `_v2` is what cuda.h makes of the plain names."""

MULTIPROCESSOR_COUNT = 16
"""CU_DEVICE_ATTRIBUTE_..., as below."""
LOCAL_SIZE_BYTES, NUM_REGS, MAX_DYNAMIC_SHARED_SIZE_BYTES = 3, 4, 8
"""CU_FUNC_ATTRIBUTE_..."""
CLUSTER_DIMENSION, PROGRAMMATIC_STREAM_SERIALIZATION = 4, 6
"""CU_LAUNCH_ATTRIBUTE_..."""
ERROR_LOG_BUFFER, ERROR_LOG_BUFFER_SIZE_BYTES = 5, 6
"""CU_JIT_..."""
LOG_BYTES = 1 << 14


class CudaError(Exception):
    """The driver is not there, or says that something failed."""


def open_library() -> Any:
    """Opens the driver's library.

    Raises:
        CudaError: there is none.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(f"no NVIDIA driver on this machine: {error}") from None
    for name, types in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, c_int
    return library


class Driver:
    """The first GPU.

    Args:
        library: has the functions of `SIGNATURES`.

    Raises:
        CudaError: there is no GPU.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self.call("cuInit", 0)
        self._device, context = c_int(), c_void_p()
        self.call("cuDeviceGet", byref(self._device), 0)
        self.call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: Any, of: str = "") -> None:
        """Calls a function.

        Args:
            name: the function's.
            arguments: its own.
            of: what it is called for, to be named in an error.

        Raises:
            CudaError: its status is not CUDA_SUCCESS.
        """
        if status := getattr(self.library, name)(*arguments):
            raise CudaError(f"{f'{of}: ' if of else ''}{name}: {self._describe(status)}")

    def _describe(self, status: int) -> str:
        texts = []
        for function in (self.library.cuGetErrorName, self.library.cuGetErrorString):
            text = c_char_p()
            function(status, byref(text))
            texts.append((text.value or b"unknown").decode())
        return f"{texts[0]} ({status}): {texts[1]}"

    def _integer(self, name: str, *arguments: Any) -> int:
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    @property
    def name(self) -> str:
        """The GPU's name."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode()

    @property
    def version(self) -> int:
        """The CUDA version that the driver knows: 12040 is 12.4."""
        return self._integer("cuDriverGetVersion")

    @property
    def multiprocessors(self) -> int:
        """Multiprocessors of the GPU."""
        return self._integer("cuDeviceGetAttribute", MULTIPROCESSOR_COUNT, self._device)

    def synchronize(self, of: str = "") -> None:
        """Waits for everything that was begun; ``of`` names it in an error."""
        self.call("cuCtxSynchronize", of=of)

    def allocate(self, size: int) -> int:
        """Gives the address, a multiple of 256, of as many bytes."""
        address = Address()
        self.call("cuMemAlloc_v2", byref(address), size, of=f"{size} bytes")
        return address.value

    def free(self, address: int) -> None:
        """Frees what `allocate` gave."""
        self.call("cuMemFree_v2", address)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copies a contiguous array to the GPU."""
        if not array.flags.c_contiguous:
            raise ValueError("an array must be contiguous")
        self.call("cuMemcpyHtoD_v2", address, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Copies from the GPU into a contiguous array."""
        self.call("cuMemcpyDtoH_v2", array.ctypes.data, address, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        """Begins to copy bytes from one place on the GPU to another."""
        self.call("cuMemcpyDtoDAsync_v2", target, source, size, None)

    def create_event(self) -> c_void_p:
        """Makes an event."""
        event = c_void_p()
        self.call("cuEventCreate", byref(event), 0)
        return event

    def record(self, event: c_void_p) -> None:
        """Notes the time once everything begun before is done."""
        self.call("cuEventRecord", event, None)

    def seconds(self, first: c_void_p, last: c_void_p) -> float:
        """Gives the time between two events that have happened."""
        milliseconds = c_float()
        self.call("cuEventElapsedTime", byref(milliseconds), first, last)
        return milliseconds.value / 1e3


class Kernel:
    """The one entry function of a module, compiled by the driver.

    Args:
        driver: the GPU.
        ptx: the module.

    Raises:
        CudaError: the driver's compiler refuses it; with what that has to say.
    """

    def __init__(self, driver: Driver, ptx: str) -> None:
        self.driver = driver
        head = parse_head(ptx)
        self.name, self.threads = head.name, head.threads
        self._sizes = head.parameters
        log = ctypes.create_string_buffer(LOG_BYTES)
        options = (c_int * 2)(ERROR_LOG_BUFFER, ERROR_LOG_BUFFER_SIZE_BYTES)
        # A value as small as a size stands in its pointer's place.
        values = (c_void_p * 2)(ctypes.addressof(log), LOG_BYTES)
        module, self._function = c_void_p(), c_void_p()
        try:
            driver.call(
                "cuModuleLoadDataEx", byref(module), ptx.encode(), 2, options, values, of=self.name
            )
        except CudaError as error:
            raise CudaError(f"{error}\n{log.value.decode(errors='replace')}".strip()) from None
        driver.call("cuModuleGetFunction", byref(self._function), module, self.name.encode())

    def _ask_for(self, shared_bytes: int) -> None:
        """Raises the limit of dynamic shared memory, which is 48 KiB otherwise."""
        attribute = MAX_DYNAMIC_SHARED_SIZE_BYTES
        if shared_bytes:
            self.driver.call(
                "cuFuncSetAttribute", self._function, attribute, shared_bytes, of=self.name
            )

    def attribute(self, which: int) -> int:
        """Gives what the compiler made of it: `NUM_REGS` or `LOCAL_SIZE_BYTES`."""
        value = c_int()
        self.driver.call("cuFuncGetAttribute", byref(value), which, self._function)
        return value.value

    def resident_blocks(self, shared_bytes: int) -> int:
        """Gives the blocks that one multiprocessor can run at once."""
        self._ask_for(shared_bytes)
        value = c_int()
        self.driver.call(
            "cuOccupancyMaxActiveBlocksPerMultiprocessor",
            *(byref(value), self._function, self.threads, shared_bytes),
        )
        return value.value

    def prepare(
        self,
        arguments: Sequence[Number],
        *,
        grid: tuple[int, int, int],
        threads: int = 0,
        shared_bytes: int = 0,
        cluster: int = 1,
        overlapping: bool = False,
    ) -> Callable[[], None]:
        """Packs a launch's parameters.

        Args:
            arguments: a number for each parameter; addresses are numbers.
            grid: blocks in x, y and z.
            threads: of a block; what the module says unless given.
            shared_bytes: dynamic shared memory of a block.
            cluster: blocks along x that share their shared memory.
            overlapping: whether it may begin before the kernel before it is over, once that says so.

        Returns:
            What begins the launch, each time it is called.

        Raises:
            ValueError: an argument is not of its parameter's size.
        """
        storage = [
            ctypes.create_string_buffer(pack(name, size, argument), size)
            for (name, size), argument in zip(self._sizes.items(), arguments, strict=True)
        ]
        pointers = (c_void_p * len(storage))(*map(ctypes.addressof, storage))
        self._ask_for(shared_bytes)
        values: dict[int, tuple[int, ...]] = {}
        if cluster > 1:
            values[CLUSTER_DIMENSION] = (cluster, 1, 1)
        if overlapping:
            values[PROGRAMMATIC_STREAM_SERIALIZATION] = (1,)
        attributes = (LaunchAttribute * len(values))(
            *(LaunchAttribute(id=which, value=value) for which, value in values.items())
        )
        config = LaunchConfig(
            grid=grid,
            block=(threads or self.threads, 1, 1),
            shared_bytes=shared_bytes,
            attributes=attributes,
            attribute_count=len(values),
        )

        def launch(_kept: Any = storage) -> None:
            self.driver.call(
                "cuLaunchKernelEx", byref(config), self._function, pointers, None, of=self.name
            )

        return launch


def pack(name: str, size: int, argument: Number) -> bytes:
    """Gives a parameter's bytes.

    Args:
        name: the parameter's.
        size: its bytes.
        argument: its value.

    Raises:
        ValueError: the value has another size, or no place in it.
    """
    if isinstance(argument, np.float32):
        if size != 4:
            raise ValueError(f"{name} must be a number of {size} bytes, got a float32")
        return argument.tobytes()
    number, bits = int(argument), 8 * size
    if not -(1 << bits - 1) <= number < 1 << bits:
        raise ValueError(f"{name} must fit {size} bytes, got {number}")
    return (number % (1 << bits)).to_bytes(size, "little")
