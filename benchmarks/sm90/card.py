"""The GPU of a benchmark of kernels: memory filled with random numbers, and launches timed by the card itself."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cuda_driver.driver import CudaError, Driver, open_library

COPY_BYTES = 2**30
NAN = 0x7FC0
"""What an output holds before: what a kernel leaves out is seen."""
DIFFERENCE = 2**-7
"""Of the largest output: other orders of float32 sums, rounded to bfloat16."""


@dataclass(frozen=True)
class Work:
    """Launches that are timed together.

    Args:
        name: what an error calls them.
        launches: in order.
        prepare: what is to be done before them each time, if anything.
    """

    name: str
    launches: Sequence[Callable[[], None]]
    prepare: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Begins all launches."""
        for launch in self.launches:
            launch()


class Card:
    """The GPU.

    Args:
        driver: its driver.
        rounds: how often each work is timed.
    """

    def __init__(self, driver: Driver, rounds: int) -> None:
        self.driver, self._rounds = driver, rounds
        self._first, self._last = driver.create_event(), driver.create_event()
        self._spare = driver.allocate(2 * COPY_BYTES)

    def fill(self, size: int, pattern: NDArray[Any]) -> int:
        """Allocates bytes that hold an array over and over."""
        address = self.driver.allocate(size)
        filled = min(size, pattern.nbytes)
        self.driver.upload(address, pattern.reshape(-1).view(np.uint8)[:filled])
        while filled < size:
            step = min(filled, size - filled)
            self.driver.copy(address + filled, address, step)
            filled += step
        self.driver.synchronize()
        return address

    def copy(self) -> None:
        """Begins the copy that is the roof."""
        self.driver.copy(self._spare + COPY_BYTES, self._spare, COPY_BYTES)

    def copy_rate(self) -> float:
        """Times that copy: GB/s, what is read and what is written."""
        [times] = self.seconds([Work("copy", [self.copy])])
        return 2 * COPY_BYTES / statistics.median(times) / 1e9

    def report(self) -> dict[str, Any]:
        """Gives what a report begins with: the GPU, its driver, and that rate as the roof."""
        return {
            "gpu": self.driver.name,
            "driver": self.driver.version,
            "roofs": {"copy_GB_per_s": self.copy_rate()},
        }

    def run(self, work: Work) -> None:
        """Runs a work once, untimed: the first time it warms up what the card keeps of it."""
        work.prepare()
        work.begin()
        self.driver.synchronize(of=work.name)

    def seconds(self, works: Sequence[Work]) -> list[list[float]]:
        """Times each work in every round, so that a card that gets warm does so for all of them.

        Args:
            works: to be compared, each run before; who begins is another one each round.

        Returns:
            Seconds of each work's rounds, for one of its launches, sorted.
        """
        times: list[list[float]] = [[] for _ in works]
        for round_number in range(self._rounds):
            for turn in range(len(works)):
                number = (round_number + turn) % len(works)
                work = works[number]
                work.prepare()
                self.copy()  # keeps the card busy while launches queue up, its cache full of other things
                self.driver.record(self._first)
                work.begin()
                self.driver.record(self._last)
                self.driver.synchronize(of=work.name)
                seconds = self.driver.seconds(self._first, self._last)
                times[number].append(seconds / len(work.launches))
        return [sorted(of_work) for of_work in times]


def open_card(parser: argparse.ArgumentParser, rounds: int) -> Card:
    """Opens the GPU, or ends the program as for a wrong argument."""
    try:
        return Card(Driver(open_library()), rounds)
    except CudaError as error:
        parser.error(str(error))


def random_bfloat16(rng: np.random.Generator, elements: int) -> NDArray[np.uint16]:
    """Normal values of bfloat16, as bits."""
    bits = rng.standard_normal(elements, dtype=np.float32).view(np.uint32) >> 16
    return bits.astype(np.uint16)
