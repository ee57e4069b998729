"""mbarrier: an object in shared memory that counts arrivals and bytes.

Source: PTX ISA 9.0, "Parallel Synchronization and Communication Instructions: mbarrier".
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Barrier:
    """One mbarrier object.

    Args:
        count: arrivals that complete a phase.
    """

    count: int
    phase: int = 0
    pending: int = field(init=False)
    bytes: int = 0

    def __post_init__(self) -> None:
        self.pending = self.count

    def arrive(self) -> None:
        """Counts an arrival.

        Raises:
            RuntimeError: more than the phase has.
        """
        self.pending -= 1
        if self.pending < 0:
            raise RuntimeError("more arrivals at a barrier than it counts")
        self._complete()

    def expect(self, size: int) -> None:
        """Makes the phase wait for bytes more."""
        self.bytes += size

    def deliver(self, size: int) -> None:
        """Counts bytes that have come, even before they are expected."""
        self.bytes -= size
        self._complete()

    def has_completed(self, parity: int) -> bool:
        """Whether the phase of that parity is over: a fresh barrier's phase 1 is, as the one before its first."""
        return self.phase % 2 != parity

    def _complete(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase += 1
            self.pending = self.count


class Barriers:
    """All barriers of a block, by the address of each."""

    def __init__(self) -> None:
        self._barriers: dict[int, Barrier] = {}

    def init(self, address: int, count: int) -> None:
        """Makes a barrier.

        Raises:
            RuntimeError: there is one already.
        """
        if address in self._barriers or address % 8:
            raise RuntimeError(f"a barrier at {address}, where one is or none may be")
        self._barriers[address] = Barrier(count)

    def __getitem__(self, address: int) -> Barrier:
        """Gives the barrier at an address.

        Raises:
            RuntimeError: there is none.
        """
        if address not in self._barriers:
            raise RuntimeError(f"no barrier was made at {address}")
        return self._barriers[address]
