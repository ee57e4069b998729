"""Where kernels run that are tested: in the PTX emulator or, with MXFP4_GPU_TESTS=1, on this machine's GPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import pytest

from tests.cuda_driver import launch as cuda_driver
from tests.custom_ops.mxfp4.ptx import facts
from tests.ptx_emulator import launch as ptx_emulator
from tests.ptx_emulator.tensor_core import Mode

ON_GPU = os.environ.get("MXFP4_GPU_TESTS") == "1"

needs_emulator = pytest.mark.skipif(
    ON_GPU, reason="needs the emulator: a GPU lets no test choose what comes first"
)


def launch(
    ptx: str,
    arguments: Sequence[ptx_emulator.Argument],
    *,
    grid: tuple[int, int, int],
    threads: int = 0,
    cluster: int = 1,
    at_once: bool = False,
    unfinished: Collection[int] = (),
    fresh: Collection[int] = (),
    mode: Mode = Mode.EAGER,
    seed: int = 0,
) -> None:
    """Runs a kernel, with the dynamic shared memory that it says it needs.

    Args:
        ptx: the kernel's module.
        arguments: arrays, which the kernel reads and writes in place, and numbers.
        grid: blocks in x, y and z.
        threads: of a block; what the module says unless given.
        cluster: blocks along x that share their shared memory.
        at_once: whether all blocks are there at once, in the emulator.
        unfinished: positions of arrays that the kernel before may use until this one has waited, in the emulator.
        fresh: positions of arrays that were written so shortly before that one that caches may have older lines, in
            the emulator.
        mode: when tensor cores work, in the emulator.
        seed: of the order of warps and copies, in the emulator.
    """
    shared_bytes = facts(ptx).get("shared_bytes", 0)
    if ON_GPU:
        cuda_driver.launch(
            ptx, arguments, grid=grid, threads=threads, shared_bytes=shared_bytes, cluster=cluster
        )
    else:
        ptx_emulator.launch(
            ptx,
            arguments,
            grid=grid,
            threads=threads,
            shared_bytes=shared_bytes,
            cluster=cluster,
            at_once=at_once,
            unfinished=unfinished,
            fresh=fresh,
            mode=mode,
            seed=seed,
        )
