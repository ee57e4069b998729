"""A grid of blocks, one after the other."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator.block import Block
from tests.ptx_emulator.memory import SHARED_BYTES, GlobalMemory
from tests.ptx_emulator.program import parse_program
from tests.ptx_emulator.tensor_core import Mode

Argument = NDArray[np.generic] | np.float32 | int

_parse_once = functools.lru_cache(maxsize=32)(parse_program)


def launch(
    ptx: str,
    arguments: Sequence[Argument],
    *,
    grid: tuple[int, int, int],
    threads: int = 0,
    shared_bytes: int = SHARED_BYTES,
    mode: Mode = Mode.EAGER,
    seed: int = 0,
) -> None:
    """Runs a kernel.

    Args:
        ptx: the kernel's module.
        arguments: arrays, which become buffers that the kernel reads and writes in place, and numbers.
        grid: blocks in x, y and z.
        threads: of a block; what the module says unless given.
        shared_bytes: what the launch asks for.
        mode: when tensor cores work.
        seed: of the first block's order of warps and copies.
    """
    program = _parse_once(ptx)
    memory = GlobalMemory()
    parameters = []
    for name, argument in zip(program.parameters, arguments, strict=True):
        if isinstance(argument, np.ndarray):
            parameters.append(memory.add(name, argument))
        elif isinstance(argument, np.float32):
            parameters.append(int(argument.view(np.uint32)))
        else:
            parameters.append(int(argument))
    for number, (z, y, x) in enumerate(itertools.product(*(range(n) for n in reversed(grid)))):
        Block(
            program,
            memory,
            parameters,
            threads=threads or program.threads,
            index=(x, y, z),
            grid=grid,
            mode=mode,
            seed=seed + number,
            shared_bytes=shared_bytes,
        ).run()
