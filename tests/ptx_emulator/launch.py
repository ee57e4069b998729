"""A grid of blocks, one cluster after the other."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator.block import Block, run_together
from tests.ptx_emulator.memory import GlobalMemory
from tests.ptx_emulator.program import Program, parse_program
from tests.ptx_emulator.tensor_core import Mode

Argument = NDArray[np.generic] | np.float32 | int

_parse_once = functools.lru_cache(maxsize=32)(parse_program)


def launch(
    ptx: str,
    arguments: Sequence[Argument],
    *,
    grid: tuple[int, int, int],
    threads: int = 0,
    shared_bytes: int = 0,
    cluster: int = 1,
    at_once: bool = False,
    unfinished: Collection[int] = (),
    fresh: Collection[int] = (),
    mode: Mode = Mode.EAGER,
    seed: int = 0,
) -> None:
    """Runs a kernel.

    Args:
        ptx: the kernel's module.
        arguments: arrays, which become buffers that the kernel reads and writes in place, and numbers.
        grid: blocks in x, y and z.
        threads: of a block; what the module says unless given.
        shared_bytes: dynamic shared memory of a block.
        cluster: blocks along x that share their shared memory.
        at_once: whether all blocks are there at once, as those of a grid no larger than the GPU are.
        unfinished: positions of arrays that the kernel before may use until the kernel has waited for it.
        fresh: positions of arrays that were written so shortly before that one that caches may have older lines.
        mode: when tensor cores work.
        seed: of the first block's order of warps and copies.
    """
    program = _parse_once(ptx)
    memory = GlobalMemory()
    parameters = []
    for position, (name, argument) in enumerate(zip(program.parameters, arguments, strict=True)):
        if isinstance(argument, np.ndarray):
            finished = position not in unfinished
            parameters.append(
                memory.add(name, argument, finished=finished, fresh=position in fresh)
            )
        elif isinstance(argument, np.float32):
            parameters.append(int(argument.view(np.uint32)))
        else:
            parameters.append(int(argument))
    run_grid(
        program,
        memory,
        parameters,
        grid=grid,
        threads=threads or program.threads,
        shared_bytes=shared_bytes,
        cluster=cluster,
        at_once=at_once,
        mode=mode,
        seed=seed,
    )


def run_grid(
    program: Program,
    memory: GlobalMemory,
    parameters: Sequence[int],
    *,
    grid: tuple[int, int, int],
    threads: int,
    shared_bytes: int,
    cluster: int = 1,
    at_once: bool = False,
    mode: Mode,
    seed: int = 0,
) -> None:
    """Runs all blocks of a program.

    Args:
        program: what they run.
        memory: global memory.
        parameters: a number for each of the program's.
        grid: blocks in x, y and z.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
        cluster: blocks along x that share their shared memory.
        at_once: whether all blocks are there at once.
        mode: when tensor cores work.
        seed: of the first block's order of warps and copies.
    """
    memory.begin_launch()
    if grid[0] % cluster:
        raise ValueError(f"{program.name}: {grid[0]} blocks along x, clusters of {cluster}")
    blocks = (
        Block(
            program,
            memory,
            parameters,
            threads=threads,
            index=(x, y, z),
            grid=grid,
            mode=mode,
            seed=seed + number,
            shared_bytes=shared_bytes,
        )
        for number, (z, y, x) in enumerate(itertools.product(*map(range, reversed(grid))))
    )
    if at_once:
        run_together(list(blocks), as_cluster=False)
    while together := list(itertools.islice(blocks, cluster)):
        run_together(together)
