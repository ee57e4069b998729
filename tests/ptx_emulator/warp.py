"""A warp: registers of 32 lanes, and where each lane is in the program."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator.numbers import Bits
from tests.ptx_emulator.program import Program, split_operands

LANES = 32

Mask = NDArray[np.bool_]
"""Which lanes take part."""

ALL: Mask = np.ones(LANES, bool)
"""All of them. Most instructions are for all lanes, and told apart by this very array they are a third of the work."""

_ADDRESS = re.compile(r"^\[\s*([%\w$]+)\s*(?:\+(-?\d+))?\s*\]$")
_INTEGER = re.compile(r"^-?(0[xX][0-9a-fA-F]+|\d+)U?$")
_FLOAT = re.compile(r"^0[fFdD][0-9a-fA-F]+$")


class UnwrittenRegisterError(Exception):
    """A register is read that nothing has written."""


class Warp:
    """One warp of a block.

    Args:
        number: in its block.
        program: that it runs.
        special: what it and its block are called: ``%tid.x`` and the like, and addresses of variables.
    """

    def __init__(self, number: int, program: Program, special: dict[str, Any]) -> None:
        self.number = number
        self.program = program
        self.done = False
        """Whether all lanes have returned."""
        self.waiting: tuple[int, int] | None = None
        """The barrier it waits at, and how many threads that counts."""
        self.cluster_arrivals = 0
        """How often it came to the barrier of its cluster."""
        self._together: int | None = 0
        """Where all lanes stand, or None: then each stands at its place."""
        self._place = np.zeros(LANES, np.int64)
        self._live = ALL
        self._asked = np.zeros(LANES, bool)
        """Lanes that asked an mbarrier in vain: others of the warp come first, as hardware promises progress to all."""
        self._waited = np.zeros(LANES, bool)
        """Lanes that have waited for the kernel before."""
        self._special = {
            name: np.broadcast_to(np.asarray(value, np.int64).astype(np.uint64), (LANES,))
            for name, value in special.items()
        }
        self._registers: dict[str, Bits] = {}
        self._written: dict[str, Mask] = {}

    def next_lanes(self) -> tuple[int, Mask]:
        """Gives the foremost place that a lane stands at, and all lanes there: those behind catch up first.

        Where an instruction is for whole warps, lanes that took another way around come first, wherever they are.

        Raises:
            RuntimeError: lanes stand at different instructions for whole warps.
        """
        if self._together is not None:
            return self._together, ALL
        if self._live.all() and not self._asked.any() and (self._place == self._place[0]).all():
            self._together = int(self._place[0])
            return self._together, ALL
        for lanes in (self._live & ~self._asked, self._live):
            for place in np.unique(self._place[lanes]):
                mask = lanes & (self._place == place)
                if mask.all() or not self.program.instructions[place].for_whole_warp:
                    return int(place), mask
            self._asked[:] = False
        places = [str(self.program.instructions[at]) for at in np.unique(self._place[self._live])]
        raise RuntimeError(f"parts of warp {self.number} alone: {places}")

    def move(self, lanes: Mask, by: int) -> None:
        """Has lanes go on by some instructions, or back."""
        if lanes is ALL and self._together is not None:
            self._together += by
        else:
            self._separate()
            self._place = np.where(lanes, self._place + by, self._place)

    def go_to(self, lanes: Mask, place: int) -> None:
        """Has lanes go on elsewhere."""
        if lanes is ALL:
            self._together = place
        else:
            self._separate()
            self._place = np.where(lanes, place, self._place)

    def _separate(self) -> None:
        if self._together is not None:
            self._place = np.full(LANES, self._together)
            self._together = None

    def end(self, lanes: Mask) -> None:
        """Has lanes return."""
        self._separate()
        self._live = self._live & ~lanes
        self.done = not self._live.any()

    def ask_again(self, lanes: Mask) -> None:
        """Remembers lanes that asked a barrier in vain."""
        if lanes is not ALL:
            self._asked |= lanes

    def wait(self, lanes: Mask) -> None:
        """Has lanes know that the kernel before is over."""
        self._waited = ALL if lanes is ALL else self._waited | lanes

    def has_waited(self, lanes: Mask) -> bool:
        """Whether all of some lanes have waited for the kernel before."""
        return self._waited is ALL or bool(self._waited[lanes].all())

    def read(self, operand: str, mask: Mask) -> Bits:
        """Gives an operand's bits: of a register, a literal, or something special. They are not to be written to.

        Raises:
            UnwrittenRegisterError: a lane of the mask has not written the register.
        """
        bits = self._registers.get(operand)
        if bits is not None:
            written = self._written[operand]
            if written is not ALL and not written[mask].all():
                raise UnwrittenRegisterError(operand)
            return bits
        bits = self._special.get(operand)
        if bits is None:
            bits = _literal(operand)
        if bits is None:
            raise UnwrittenRegisterError(operand)
        return bits

    def write(self, operand: str, bits: Bits, mask: Mask) -> None:
        """Writes a register's lanes; ``_`` takes nothing."""
        if operand == "_":
            return
        if mask is ALL:
            self._registers[operand] = bits
            self._written[operand] = ALL
            return
        if operand not in self._registers:
            self._registers[operand] = np.zeros(LANES, np.uint64)
            self._written[operand] = np.zeros(LANES, bool)
        self._registers[operand] = np.where(mask, bits, self._registers[operand])
        if self._written[operand] is not ALL:
            self._written[operand] = self._written[operand] | mask

    def read_one(self, operand: str, mask: Mask) -> int:
        """Gives an operand that must be the same in all lanes of the mask."""
        values = np.unique(self.read(operand, mask)[mask])
        if values.size != 1:
            raise ValueError(f"{operand} must be the same in all lanes, got {values}")
        return int(values[0])

    def read_one_address(self, operand: str, mask: Mask) -> int:
        """Gives an address that must be the same in all lanes of the mask."""
        addresses = np.unique(self.address(operand, mask)[mask])
        if addresses.size != 1:
            raise ValueError(f"{operand} must be the same in all lanes, got {addresses}")
        return int(addresses[0])

    def address(self, operand: str, mask: Mask) -> Bits:
        """Gives the addresses in ``[register+offset]``."""
        register, offset = _address(operand)
        return self.read(register, mask) + offset


@functools.cache
def _literal(operand: str) -> Bits | None:
    if _INTEGER.match(operand):
        number = int(operand.rstrip("U"), 0) & 0xFFFF_FFFF_FFFF_FFFF
    elif _FLOAT.match(operand):
        number = int(operand[2:], 16)
    else:
        return None
    return np.full(LANES, number, np.uint64)


@functools.cache
def _address(operand: str) -> tuple[str, np.uint64]:
    found = _ADDRESS.match(operand)
    if not found:
        raise NotImplementedError(f"address {operand}")
    return found[1], np.int64(int(found[2] or 0)).astype(np.uint64)


@functools.cache
def vector(operand: str) -> tuple[str, ...]:
    """Gives the registers in ``{a, b}``, or the one that stands by itself."""
    return tuple(split_operands(operand[1:-1])) if operand.startswith("{") else (operand,)
