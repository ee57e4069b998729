"""A warp: registers of 32 lanes, and where each lane is in the program."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator.numbers import Bits
from tests.ptx_emulator.program import Program, split_operands

LANES = 32

WHOLE_WARP = (
    "wgmma",
    "mma.sync",
    "ldmatrix.sync",
    "setmaxnreg",
    "bar.sync",
    "barrier.sync",
    "bar.warp.sync",
    "shfl.sync",
    "redux.sync",
    "barrier.cluster",
    "movmatrix.sync",
)
"""What all lanes of a warp must come to together."""

Mask = NDArray[np.bool_]
"""Which lanes take part."""

_ADDRESS = re.compile(r"^\[\s*([%\w$]+)\s*(?:\+(-?\d+))?\s*\]$")
_INTEGER = re.compile(r"^-?(0[xX][0-9a-fA-F]+|\d+)U?$")


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
        self.place = np.zeros(LANES, np.int64)
        self.live = np.ones(LANES, bool)
        self.waiting: tuple[int, int] | None = None
        """The barrier it waits at, and how many threads that counts."""
        self.cluster_arrivals = 0
        """How often it came to the barrier of its cluster."""
        self.asked = np.zeros(LANES, bool)
        """Lanes that asked an mbarrier in vain: others of the warp come first, as hardware promises progress to all."""
        self.waited = np.zeros(LANES, bool)
        """Lanes that have waited for the kernel before."""
        self._special = special
        self._registers: dict[str, Bits] = {}
        self._written: dict[str, Mask] = {}

    @property
    def done(self) -> bool:
        """Whether all lanes have returned."""
        return not self.live.any()

    def next_lanes(self) -> tuple[int, Mask]:
        """Gives the foremost place that a lane stands at, and all lanes there: those behind catch up first.

        Where an instruction is for whole warps, lanes that took another way around come first, wherever they are.

        Raises:
            RuntimeError: lanes stand at different instructions for whole warps.
        """
        for lanes in (self.live & ~self.asked, self.live):
            for place in np.unique(self.place[lanes]):
                mask = lanes & (self.place == place)
                whole = self.program.instructions[place].opcode.startswith(WHOLE_WARP)
                if mask.all() or not whole:
                    return int(place), mask
            self.asked[:] = False
        places = [str(self.program.instructions[at]) for at in np.unique(self.place[self.live])]
        raise RuntimeError(f"parts of warp {self.number} alone: {places}")

    def read(self, operand: str, mask: Mask) -> Bits:
        """Gives an operand's bits: of a register, a literal, or something special.

        Raises:
            UnwrittenRegisterError: a lane of the mask has not written the register.
        """
        if operand in self._registers:
            if not self._written[operand][mask].all():
                raise UnwrittenRegisterError(operand)
            return self._registers[operand]
        if operand in self._special:
            value = np.asarray(self._special[operand], np.int64).astype(np.uint64)
            return np.broadcast_to(value, (LANES,))
        if _INTEGER.match(operand):
            number = int(operand.rstrip("U"), 0) & 0xFFFF_FFFF_FFFF_FFFF
            return np.full(LANES, number, np.uint64)
        if re.match(r"^0[fFdD][0-9a-fA-F]+$", operand):
            return np.full(LANES, int(operand[2:], 16), np.uint64)
        raise UnwrittenRegisterError(operand)

    def write(self, operand: str, bits: Bits, mask: Mask) -> None:
        """Writes a register's lanes; ``_`` takes nothing."""
        if operand == "_":
            return
        if operand not in self._registers:
            self._registers[operand] = np.zeros(LANES, np.uint64)
            self._written[operand] = np.zeros(LANES, bool)
        self._registers[operand] = np.where(mask, bits, self._registers[operand])
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
        found = _ADDRESS.match(operand)
        if not found:
            raise NotImplementedError(f"address {operand}")
        return self.read(found[1], mask) + np.int64(int(found[2] or 0)).astype(np.uint64)


def vector(operand: str) -> list[str]:
    """Gives the registers in ``{a, b}``, or the one that stands by itself."""
    return split_operands(operand[1:-1]) if operand.startswith("{") else [operand]
