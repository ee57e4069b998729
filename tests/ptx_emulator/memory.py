"""Global buffers, out of whose bounds nothing may reach, and shared memory that remembers who wrote what."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

SHARED_BYTES = 232_448
"""What a block can have on Hopper. Source: CUDA programming guide, compute capability 9.0, 227 KiB."""

_FIRST_ADDRESS = 1 << 32
_GAP = 1 << 20


class MemoryAccessError(Exception):
    """An access that hardware would fault on, or give anything for."""


Who = tuple[int, int]
"""A warp: its block, and which of the block's it is."""


class GlobalMemory:
    """Buffers far apart.

    Until one waits for the kernel before, some are still written by it, and of some others, written shortly before, a
    first-level cache may have older lines. What a warp stores is there for other blocks once it has released it, for
    those of their warps that have acquired since.
    """

    def __init__(self) -> None:
        self._now = 0
        self._stores: dict[int, tuple[int, Who]] = {}
        self._released: dict[Who, list[int]] = {}
        self._acquired: dict[Who, int] = {}
        self._names: list[str] = []
        self._unfinished: set[str] = set()
        self._fresh: set[str] = set()
        self._begins: list[int] = []
        self._buffers: list[Bytes] = []

    def add(
        self, name: str, array: NDArray[Any], *, finished: bool = True, fresh: bool = False
    ) -> int:
        """Adds a buffer, which kernels then read and write in place.

        Args:
            name: for errors.
            array: contiguous.
            finished: whether it may be read before the wait for the kernel before.
            fresh: whether that must be past the first-level cache.

        Returns:
            Its address, a multiple of 256 as allocators give.
        """
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous")
        end = self._begins[-1] + self._buffers[-1].size if self._begins else _FIRST_ADDRESS
        self._names.append(name)
        if not finished:
            self._unfinished.add(name)
        if fresh:
            self._fresh.add(name)
        self._begins.append(-(-(end + _GAP) // 256) * 256)
        self._buffers.append(array.reshape(-1).view(np.uint8))
        return self._begins[-1]

    def place(
        self, addresses: Addresses, size: int, *, waited: bool = True, cached: bool = False
    ) -> tuple[Bytes, NDArray[np.int64]]:
        """Gives the buffer that all of the accesses lie in, and where in it.

        Args:
            addresses: of aligned accesses, at least one.
            size: bytes of each.
            waited: whether the kernel before is over.
            cached: whether the access is one of the first-level cache.

        Raises:
            MemoryAccessError: outside of every buffer, in two at once, misaligned, or too early.
        """
        which = bisect.bisect_right(self._begins, int(addresses[0])) - 1
        if which < 0:
            raise MemoryAccessError(f"no buffer at {int(addresses[0]):#x}")
        offsets = addresses.astype(np.int64) - self._begins[which]
        name, buffer = self._names[which], self._buffers[which]
        outside = (offsets < 0) | (offsets + size > buffer.size)
        if outside.any():
            at = int(offsets[outside][0])
            raise MemoryAccessError(f"{name}: bytes {at}..{at + size - 1} of {buffer.size}")
        check_aligned(name, offsets, size)
        if name in self._unfinished and not waited:
            raise MemoryAccessError(f"{name}: the kernel before still writes it")
        if name in self._fresh and cached and not waited:
            raise MemoryAccessError(f"{name}: the first-level cache may have older lines")
        return buffer, offsets

    def begin_launch(self) -> None:
        """Has all know what kernels before have stored."""
        self._stores.clear()

    def note_store(self, addresses: range, who: Who) -> None:
        """Remembers who stored a run of bytes."""
        self._now += 1
        self._stores.update(dict.fromkeys(addresses, (self._now, who)))

    def release(self, who: Who) -> None:
        """Has others know what a warp stored so far."""
        self._now += 1
        self._released.setdefault(who, []).append(self._now)

    def acquire(self, who: Who) -> None:
        """Has a warp know what others have released so far."""
        self._now += 1
        self._acquired[who] = self._now

    def check_known(self, first: int, size: int, who: Who) -> None:
        """Checks that a warp knows of all stores of other blocks to a run of bytes.

        Raises:
            MemoryAccessError: it might read what was there before.
        """
        for address in range(first, first + size) if self._stores else ():
            time, writer = self._stores.get(address, (0, who))
            if writer[0] == who[0]:
                continue
            releases = self._released.get(writer, [])
            behind = bisect.bisect_right(releases, time)
            if behind == len(releases) or releases[behind] > self._acquired.get(who, 0):
                raise MemoryAccessError(
                    f"block {who[0]}, warp {who[1]} need not see what block {writer[0]}, warp {writer[1]} stored"
                )


class SharedMemory:
    """A block's shared memory.

    A byte may be read once it was written. What ordinary stores wrote may be read by the tensor core (which goes
    through the async proxy) only behind a proxy fence of the writing or of the reading warp.

    Args:
        size: bytes.
    """

    def __init__(self, size: int = SHARED_BYTES) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self._written = np.zeros(size, bool)
        self._time = np.zeros(size, np.int64)
        self._writer = np.full(size, -1, np.int32)
        self._now = 0
        self._fenced: dict[int, int] = {}

    def read(self, offsets: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
        """Gives little-endian numbers of ``size`` bytes."""
        places = self._places(offsets, size)
        self._require_written(places)
        return join_bytes(self.bytes[places])

    def write(self, offsets: NDArray[np.int64], size: int, values: Addresses, warp: int) -> None:
        """Writes numbers of ``size`` bytes as a warp's ordinary store does."""
        self.write_bytes(self._places(offsets, size), split_bytes(values, size), warp)

    def write_bytes(self, places: NDArray[np.int64], values: Bytes, warp: int | None) -> None:
        """Writes bytes for a warp, or for an asynchronous copy."""
        self._now += 1
        self.bytes[places] = values
        self._written[places] = True
        self._time[places] = 0 if warp is None else self._now
        self._writer[places] = -1 if warp is None else warp

    def fence_proxies(self, warp: int) -> None:
        """Orders ordinary stores that this warp made or knows of before what the async proxy reads."""
        self._now += 1
        self._fenced[warp] = self._now

    def read_async(self, places: NDArray[np.int64], warp: int) -> Bytes:
        """Gives bytes as the tensor core reads them for a warp."""
        if places.max() >= self.bytes.size:
            raise MemoryAccessError(f"shared byte {places.max()} of {self.bytes.size}")
        self._require_written(places)
        reader = self._fenced.get(warp, 0)
        times, writers = self._time[places], self._writer[places]
        late = times > reader
        if late.any():
            for writer in np.unique(writers[late]):
                if (times[late & (writers == writer)] > self._fenced.get(int(writer), 0)).any():
                    raise MemoryAccessError(
                        f"the tensor core reads what warp {writer} stored, with no proxy fence between"
                    )
        return self.bytes[places]

    def _places(self, offsets: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        outside = (offsets < 0) | (offsets + size > self.bytes.size)
        if outside.any():
            raise MemoryAccessError(f"shared byte {offsets[outside][0]} of {self.bytes.size}")
        check_aligned("shared memory", offsets, size)
        return offsets[..., None] + np.arange(size)

    def _require_written(self, places: NDArray[np.int64]) -> None:
        if not self._written[places].all():
            first = places[~self._written[places]][0]
            raise MemoryAccessError(f"shared byte {first} is read before it is written")


def check_aligned(name: str, offsets: NDArray[np.int64], size: int) -> None:
    """Raises where an access is not at a multiple of its size."""
    if (offsets % size).any():
        at = int(offsets[offsets % size != 0][0])
        raise MemoryAccessError(f"{name}: byte {at} is no multiple of {size}")


def join_bytes(values: Bytes) -> NDArray[np.uint64]:
    """Little-endian numbers of bytes [..., size]."""
    padded = np.zeros((*values.shape[:-1], 8), np.uint8)
    padded[..., : values.shape[-1]] = values
    return padded.view(np.uint64)[..., 0]


def split_bytes(values: Addresses, size: int) -> Bytes:
    """Bytes [..., size] of numbers, little-endian."""
    contiguous = np.ascontiguousarray(values, np.uint64)
    return contiguous[..., None].view(np.uint8)[..., :size]
