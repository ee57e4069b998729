"""A block of threads, or a cluster of them: whose turn it is, branches, and barriers for all of its warps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.ptx_emulator import arithmetic, transfers
from tests.ptx_emulator.barrier import Barriers
from tests.ptx_emulator.copies import Copies
from tests.ptx_emulator.memory import (
    SHARED_BYTES,
    GlobalMemory,
    MemoryAccessError,
    SharedMemory,
    Who,
)
from tests.ptx_emulator.numbers import width
from tests.ptx_emulator.program import Instruction, Program
from tests.ptx_emulator.tensor_core import Mode, TensorCore, multiply_at_once, transpose_matrix
from tests.ptx_emulator.warp import ALL, LANES, Mask, Warp, vector

RANK_SHIFT = np.uint64(24)
"""Where an address in a cluster's shared memory has the block's rank."""

TURN = 40
"""Instructions a warp may run before another's turn, at most."""


class DeadlockError(Exception):
    """Nothing can go on."""


class Block:
    """A block, to be run to its end.

    Args:
        program: what its threads run.
        memory: global memory.
        parameters: a number for each of the program's.
        threads: a multiple of 32.
        index: the block's in the grid, x, y and z.
        grid: blocks in x, y and z.
        mode: when tensor cores work.
        seed: of the order in which warps and copies take turns.
        shared_bytes: what the launch asks for, beside what the program declares.
    """

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        parameters: Sequence[int],
        *,
        threads: int,
        index: tuple[int, int, int] = (0, 0, 0),
        grid: tuple[int, int, int] = (1, 1, 1),
        mode: Mode = Mode.EAGER,
        seed: int = 0,
        shared_bytes: int = SHARED_BYTES,
    ) -> None:
        if threads % LANES or len(parameters) != len(program.parameters):
            raise ValueError(
                f"{program.name}: {threads} threads, {len(parameters)} parameters for {program.parameters}"
            )
        self.program = program
        self.memory = memory
        self._number = index[0] + grid[0] * (index[1] + grid[1] * index[2])
        self.shared = SharedMemory(min(shared_bytes + program.shared_bytes, SHARED_BYTES))
        self.barriers = Barriers()
        self.cluster: Sequence[Block] = [self]
        self.executed = 0
        self.waited = False
        """Whether some lane has waited for the kernel before: then it is over for all."""
        self._rng = np.random.default_rng(seed)
        self.copies = Copies(self._rng)
        self._parameters = dict(zip(program.parameters, parameters, strict=True))
        self.warps = [
            Warp(number, program, self._special(number, threads, index, grid))
            for number in range(threads // LANES)
        ]
        self._tensor_cores = [TensorCore(warp, self.shared, mode) for warp in self.warps]

    def _special(
        self, number: int, threads: int, index: tuple[int, int, int], grid: tuple[int, int, int]
    ) -> dict[str, object]:
        special: dict[str, object] = {
            "%tid.x": np.arange(LANES) + number * LANES,
            "%tid.y": 0,
            "%tid.z": 0,
            "%ntid.x": threads,
            "%laneid": np.arange(LANES),
            "%warpid": number,
            **self.program.shared,
        }
        for axis, at, count in zip("xyz", index, grid, strict=True):
            special[f"%ctaid.{axis}"] = at
            special[f"%nctaid.{axis}"] = count
        return special

    def who(self, warp: Warp) -> Who:
        """Names one of its warps to others' blocks."""
        return self._number, warp.number

    @property
    def done(self) -> bool:
        """Whether every thread has returned."""
        return all(warp.done for warp in self.warps)

    def run(self, limit: int = 10**7) -> None:
        """Runs a block that is a cluster by itself, as `run_together` does."""
        run_together([self], limit)

    def step(self) -> bool:
        """Lets a copy be done, now and then, and a warp take a turn; says whether there was progress.

        Raises:
            DeadlockError: all warps wait for each other.
        """
        progress = False
        if not self.copies.idle and self._rng.random() < 0.5:
            self.copies.finish_one()
            progress = True
        ready = [warp for warp in self.warps if not warp.done and not warp.waiting]
        if ready:
            warp = ready[int(self._rng.integers(len(ready)))]
            progress = self._take_turn(warp) or progress
        self._release_waiting()
        if self.copies.idle and not ready:
            raise DeadlockError(self.describe())
        return progress

    def draw(self, count: int) -> int:
        """Draws one of so many."""
        return int(self._rng.integers(count)) if count > 1 else 0

    def finish(self) -> None:
        """Does the copies that are left, when all threads have returned, and looks for products that nobody awaited."""
        while not self.copies.idle:
            self.copies.finish_one()
        for core in self._tensor_cores:
            core.check_retired()

    def describe(self) -> str:
        """Says where each warp stands."""
        lines = []
        for warp in self.warps:
            if not warp.done:
                place, _ = warp.next_lanes()
                lines.append(f"warp {warp.number} at {self.program.instructions[place]}")
        return "; ".join(lines)

    def _take_turn(self, warp: Warp) -> bool:
        """Runs some instructions; says whether it did more than ask a barrier in vain."""
        progress = False
        for _ in range(int(self._rng.integers(1, TURN))):
            if warp.done or warp.waiting:
                break
            place, mask = warp.next_lanes()
            instruction = self.program.instructions[place]
            went_on = self._execute(warp, instruction, mask)
            if not went_on:
                warp.ask_again(mask)
                return progress
            # The branch back to a barrier that was not there yet is no progress.
            progress = progress or not instruction.opcode.startswith(("bra", "mov"))
        return progress

    def _release_waiting(self) -> None:
        for barrier in {warp.waiting for warp in self.warps if warp.waiting}:
            there = [warp for warp in self.warps if warp.waiting == barrier]
            if LANES * len(there) == barrier[1]:
                for warp in there:
                    warp.waiting = None

    def _execute(self, warp: Warp, instruction: Instruction, lanes: Mask) -> bool:
        """Runs one instruction for the lanes that stand there; says whether the warp may go on."""
        self.executed += 1
        mask = lanes
        if instruction.guard:
            predicate = warp.read(instruction.guard, lanes).astype(bool) != instruction.negated
            if not predicate[lanes].all():
                mask = lanes & predicate
        warp.move(lanes, 1)
        if mask is not ALL:
            if not mask.any():
                return True
            if instruction.for_whole_warp and not mask.all():
                raise RuntimeError(f"a part of warp {warp.number} alone: {instruction}")
        run = _RUN.get(instruction.parts[0], Block._compute)
        return run(self, warp, instruction, mask) is not False

    def _branch(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        warp.go_to(mask, self.program.labels[instruction.operands[0]])

    def _return(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        warp.end(mask)

    def _wait(self, warp: Warp, instruction: Instruction, mask: Mask) -> bool:
        opcode = instruction.opcode
        if opcode.startswith(("bar.sync", "barrier.sync")):
            number, *counts = (warp.read_one(x, mask) for x in instruction.operands)
            warp.waiting = number, counts[0] if counts else LANES * len(self.warps)
        elif opcode == "barrier.cluster.arrive.aligned":
            warp.cluster_arrivals += 1
        elif opcode == "barrier.cluster.wait.aligned":
            if not self._cluster_has_arrived(warp):
                warp.move(mask, -1)
                return False
        elif opcode != "bar.warp.sync":  # a warp is in order by itself
            raise NotImplementedError(str(instruction))
        return True

    def _copy(self, warp: Warp, instruction: Instruction, mask: Mask) -> bool:
        kind = ".".join(instruction.parts[1:3])
        if kind == "async.bulk":
            transfers.copy_bulk(self, warp, instruction, mask)
        elif kind in ("async.ca", "async.cg"):
            transfers.copy_async(self, warp, instruction, mask)
        elif kind == "async.commit_group":
            self.copies.commit(warp.number)
        elif kind == "async.wait_group":
            if self.copies.groups(warp.number) > int(instruction.operands[0]):
                warp.move(mask, -1)
                return False
        else:
            transfers.arrive_behind_copies(self, warp, instruction, mask)
        return True

    def _depend(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        if instruction.opcode == "griddepcontrol.wait":
            warp.wait(mask)
            self.waited = True
        elif instruction.opcode != "griddepcontrol.launch_dependents":
            raise NotImplementedError(str(instruction))
        elif not warp.has_waited(mask):
            raise RuntimeError(f"before the wait for the kernel before: {instruction}")

    def _fence(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        if instruction.parts[1:3] == ("proxy", "async"):
            self.shared.fence_proxies(warp.number)
        elif instruction.parts[1] not in ("mbarrier_init", "acq_rel"):
            raise NotImplementedError(str(instruction))

    def _order(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        """Orders or provides, and moves no number: all is in order here but what `Mode` and `Copies` delay."""

    def _cluster_has_arrived(self, warp: Warp) -> bool:
        others = (other for block in self.cluster for other in block.warps)
        return all(x.done or x.cluster_arrivals >= warp.cluster_arrivals for x in others)

    def _map_address(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        """Puts a block's rank in the cluster above the bits of an address in its shared memory."""
        if instruction.opcode != "mapa.shared::cluster.u32":
            raise NotImplementedError(str(instruction))
        target, address, rank = instruction.operands
        ranks = warp.read(rank, mask)
        if (ranks[mask] >= len(self.cluster)).any():
            raise MemoryAccessError(f"a cluster of {len(self.cluster)}: {instruction}")
        warp.write(target, warp.read(address, mask) | ranks << RANK_SHIFT, mask)

    def read_cluster(self, addresses: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
        """Gives numbers from the shared memory of the cluster's blocks.

        Raises:
            MemoryAccessError: a block has ended, and its shared memory with it.
        """
        ranks = addresses >> RANK_SHIFT
        bits = np.zeros(addresses.size, np.uint64)
        for rank in np.unique(ranks):
            block, there = self.cluster[int(rank)], ranks == rank
            if block.done:
                raise MemoryAccessError(f"the cluster's block {rank} has ended")
            at = addresses[there] & np.uint64((1 << int(RANK_SHIFT)) - 1)
            bits[there] = block.shared.read(at.astype(np.int64), size)
        return bits

    def _multiply(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        core = self._tensor_cores[warp.number]
        kind = instruction.parts[1]
        if kind == "mma_async":
            core.issue(instruction)
        elif kind == "commit_group":
            core.commit()
        elif kind == "wait_group":
            core.wait(int(instruction.operands[0]))
        elif kind != "fence":
            raise NotImplementedError(str(instruction))

    def _compute(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        parts, operands = instruction.parts, instruction.operands
        if parts[0] == "setp":
            result = arithmetic.compare(
                parts[1], parts[-1], *(warp.read(x, mask) for x in operands[1:])
            )
            warp.write(operands[0], result.astype(np.uint64), mask)
        elif parts[0] == "selp":
            a, b, predicate = (warp.read(x, mask) for x in operands[1:])
            warp.write(operands[0], np.where(predicate.astype(bool), a, b), mask)
        elif parts[:2] == ("shfl", "sync"):
            self._shuffle(warp, instruction, mask)
        elif parts == ("redux", "sync", "max", "s32") and operands[2] == "-1":
            largest = warp.read(operands[1], mask).astype(np.uint32).view(np.int32).max()
            warp.write(operands[0], np.full(LANES, int(largest) & 0xFFFF_FFFF, np.uint64), mask)
        elif parts[0] == "cvt" and parts[-2] == "bf16x2":
            upper, lower = (
                arithmetic.convert("bf16", parts[-1], warp.read(x, mask), parts[1:-2])
                for x in operands[1:]
            )
            warp.write(operands[0], upper << np.uint64(16) | lower, mask)
        elif parts[0] == "cvt":
            source = warp.read(operands[1], mask)
            warp.write(
                operands[0], arithmetic.convert(parts[-2], parts[-1], source, parts[1:-2]), mask
            )
        elif parts[0] == "mov" and operands[0].startswith("{"):
            self._unpack(warp, instruction, mask)
        elif parts[0] == "mov" and operands[1].startswith("{"):
            size = width(parts[-1]) // len(vector(operands[1]))
            bits = np.zeros(LANES, np.uint64)
            for i, part in enumerate(vector(operands[1])):
                bits |= (warp.read(part, mask) & np.uint64((1 << size) - 1)) << np.uint64(i * size)
            warp.write(operands[0], bits, mask)
        else:
            compute = arithmetic.find(parts)
            if compute is None:
                raise NotImplementedError(str(instruction))
            warp.write(operands[0], compute(*(warp.read(x, mask) for x in operands[1:])), mask)

    def _shuffle(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        _, _, kind, _ = instruction.parts
        target, source, by, clamp, members = instruction.operands
        # Segments of a warp, or a part of it, are not there.
        whole = (("idx", "31", "-1"), ("up", "0", "-1"), ("bfly", "31", "-1"))
        if (kind, clamp, members) not in whole:
            raise NotImplementedError(str(instruction))
        amount = warp.read(by, mask).astype(np.int64)
        lanes = np.arange(LANES)
        from_lane = {"idx": amount % LANES, "up": lanes - amount, "bfly": lanes ^ amount}[kind]
        from_lane = np.where(from_lane < 0, lanes, from_lane)
        warp.write(target, warp.read(source, mask)[from_lane], mask)

    def _unpack(self, warp: Warp, instruction: Instruction, mask: Mask) -> None:
        targets = vector(instruction.operands[0])
        size = width(instruction.parts[-1]) // len(targets)
        bits = warp.read(instruction.operands[1], mask)
        for i, target in enumerate(targets):
            part = bits >> np.uint64(i * size) & np.uint64((1 << size) - 1)
            warp.write(target, part, mask)

    def read_parameter(self, operand: str) -> int:
        """Gives a parameter, named as in ``[name]``; a part of one is refused."""
        name = operand[1:-1]
        if name not in self._parameters:
            raise NotImplementedError(f"parameter {operand}")
        return self._parameters[name]


_RUN: dict[str, Callable[[Block, Warp, Instruction, Mask], bool | None]] = {
    "bra": Block._branch,
    "ret": Block._return,
    "exit": Block._return,
    "bar": Block._wait,
    "barrier": Block._wait,
    "mapa": Block._map_address,
    "mbarrier": transfers.barrier_operation,
    "cp": Block._copy,
    "griddepcontrol": Block._depend,
    "fence": Block._fence,
    "setmaxnreg": Block._order,
    "membar": Block._order,
    "nanosleep": Block._order,
    "prefetch": Block._order,
    "ld": transfers.load,
    "ldmatrix": transfers.load_matrices,
    "st": transfers.store,
    "red": transfers.add,
    "mma": multiply_at_once,
    "movmatrix": transpose_matrix,
    "wgmma": Block._multiply,
}
"""What runs an instruction, by the first part of its name; all others compute. False is for a wait that is not over."""


def run_together(blocks: Sequence[Block], limit: int = 10**7, *, as_cluster: bool = True) -> None:
    """Runs blocks until every thread has returned.

    Args:
        blocks: a cluster's, by rank, or others that are there at once.
        limit: instructions, of all warps together.
        as_cluster: whether they are a cluster.

    Raises:
        DeadlockError: nothing can go on, or the limit is reached.
    """
    for block in blocks:
        block.cluster = blocks if as_cluster else [block]
    idle, warps = 0, sum(len(block.warps) for block in blocks)
    with np.errstate(all="ignore"):  # a GPU has no exceptions
        while running := [block for block in blocks if not block.done]:
            block = running[blocks[0].draw(len(running))]
            idle = 0 if block.step() else idle + 1
            stuck = idle > 100 * warps and all(block.copies.idle for block in running)
            if stuck or sum(block.executed for block in blocks) > limit:
                why = "" if stuck else f"{limit} instructions and no end: "
                raise DeadlockError(why + "; ".join(block.describe() for block in running))
    for block in blocks:
        block.finish()
