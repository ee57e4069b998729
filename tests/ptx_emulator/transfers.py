"""Loads, stores, and copies, with the barriers they arrive at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.ptx_emulator.memory import join_bytes, split_bytes
from tests.ptx_emulator.numbers import to_bits, width
from tests.ptx_emulator.program import Instruction
from tests.ptx_emulator.warp import ALL, LANES, Mask, Warp, vector

if TYPE_CHECKING:
    from tests.ptx_emulator.block import Block

_VECTORS = {"v2": 2, "v4": 4, "v8": 8}


def load(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``ld.{param,global,shared,shared::cluster}``, ``ld.volatile.global``, ``ld.acquire.gpu.global``."""
    volatile = instruction.parts[1] == "volatile"
    acquiring = instruction.parts[1:3] == ("acquire", "gpu")
    space, _, scope = instruction.parts[1 + volatile + 2 * acquiring].partition("::")
    type_name = instruction.parts[-1]
    targets, size = vector(instruction.operands[0]), width(type_name) // 8
    if len(targets) != max(_VECTORS.get(part, 1) for part in instruction.parts):
        raise NotImplementedError(str(instruction))
    if space == "param":
        if len(targets) > 1:
            raise NotImplementedError(str(instruction))
        value = block.read_parameter(instruction.operands[1])
        warp.write(targets[0], np.full(mask.size, value, np.uint64), mask)
        return
    addresses = warp.address(instruction.operands[1], mask)
    for i, target in enumerate(targets):
        at = addresses[mask] + np.uint64(i * size)
        bits = np.zeros(mask.size, np.uint64)
        if scope == "cluster":
            bits[mask] = block.read_cluster(at, size)
        elif space == "shared":
            bits[mask] = block.shared.read(at.astype(np.int64), size)
        elif space == "global":
            waited = warp.has_waited(mask)
            cached = not (volatile or acquiring)
            buffer, offsets = block.memory.place(at, size, waited=waited, cached=cached)
            if acquiring:
                block.memory.acquire(block.who(warp))
            else:
                for address in map(int, np.unique(at)):
                    block.memory.check_known(address, size, block.who(warp))
            bits[mask] = join_bytes(buffer[offsets[:, None] + np.arange(size)])
        else:
            raise NotImplementedError(str(instruction))
        if type_name.startswith("s"):
            signed = bits.astype(f"u{size}").view(f"i{size}").astype(np.int64)
            bits = to_bits(signed, "s64")
        warp.write(target, bits, mask)
    _check_vector_alignment(addresses[mask], size * len(targets), instruction)


def load_matrices(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``ldmatrix.x4``: eight lanes say where the rows of a matrix of 8 by 8 lie, lane l gets two elements of row l / 4.

    Source: PTX ISA 9.0, "Warp-level matrix load instruction: ldmatrix".
    """
    if instruction.opcode != "ldmatrix.sync.aligned.m8n8.x4.shared.b16":
        raise NotImplementedError(str(instruction))
    lane = np.arange(LANES)
    rows = warp.address(instruction.operands[1], ALL)
    _check_vector_alignment(rows, 16, instruction)
    for matrix, target in enumerate(vector(instruction.operands[0])):
        at = rows[8 * matrix + lane // 4].astype(np.int64) + 4 * (lane % 4)
        warp.write(target, block.shared.read(at, 4), ALL)


def store(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``st.{global,shared}``. Two lanes that store to one place are an error: hardware does not say who wins."""
    space, size = instruction.parts[1].partition("::")[0], width(instruction.parts[-1]) // 8
    sources = vector(instruction.operands[1])
    addresses = warp.address(instruction.operands[0], mask)
    if np.unique(addresses[mask]).size != mask.sum():
        raise RuntimeError(f"two lanes store to one address: {instruction}")
    for i, source in enumerate(sources):
        at = addresses[mask] + np.uint64(i * size)
        bits = warp.read(source, mask)[mask]
        if space == "shared":
            block.shared.write(at.astype(np.int64), size, bits, warp.number)
        elif space == "global":
            buffer, offsets = block.memory.place(at, size, waited=block.waited)
            buffer[offsets[:, None] + np.arange(size)] = split_bytes(bits, size)
            for address in map(int, at):
                block.memory.note_store(range(address, address + size), block.who(warp))
        else:
            raise NotImplementedError(str(instruction))
    _check_vector_alignment(addresses[mask], size * len(sources), instruction)


def add(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``red.release.gpu.global.add.s32``: adds, and releases what the warp stored."""
    if instruction.opcode != "red.release.gpu.global.add.s32":
        raise NotImplementedError(str(instruction))
    block.memory.release(block.who(warp))
    addresses = warp.address(instruction.operands[0], mask)
    amounts = warp.read(instruction.operands[1], mask)
    for lane in np.flatnonzero(mask):
        buffer, offset = block.memory.place(addresses[lane : lane + 1], 4, waited=block.waited)
        place = slice(int(offset[0]), int(offset[0]) + 4)
        number = buffer[place].view(np.int32)
        number += np.int32(amounts[lane].astype(np.uint32).view(np.int32))


def _check_vector_alignment(addresses: np.ndarray, size: int, instruction: Instruction) -> None:
    if (addresses % np.uint64(size)).any():
        raise RuntimeError(f"misaligned: {instruction}")


def copy_async(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``cp.async``: of each lane 4, 8 or 16 bytes, of which the last may be zeros instead."""
    operands = instruction.operands
    targets = warp.address(operands[0], mask)[mask].astype(np.int64)
    sources = warp.address(operands[1], mask)[mask]
    size = int(operands[2])
    taken = np.full(targets.size, size)
    if len(operands) > 3:
        taken = warp.read(operands[3], mask)[mask].astype(np.int64)
    if (targets % size).any() or (sources % np.uint64(size)).any() or (taken > size).any():
        raise RuntimeError(f"misaligned or too long: {instruction}")
    waited = warp.has_waited(mask)
    values = np.zeros((targets.size, size), np.uint8)
    for i in range(targets.size):
        if taken[i]:
            buffer, offset = block.memory.place(sources[i : i + 1], 1, waited=waited)
            end = int(offset[0]) + int(taken[i])
            if end > buffer.size:
                raise RuntimeError(f"reads past its buffer: {instruction}")
            block.memory.check_known(int(sources[i]), int(taken[i]), block.who(warp))
            values[i, : taken[i]] = buffer[int(offset[0]) : end]
    places = targets[:, None] + np.arange(size)
    block.copies.add(warp.number, lambda: block.shared.write_bytes(places, values, warp.number))


def arrive_behind_copies(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``cp.async.mbarrier.arrive.noinc``: an arrival for each lane when all copies before it are done."""
    if not instruction.opcode.startswith("cp.async.mbarrier.arrive.noinc."):
        raise NotImplementedError(str(instruction))
    barrier = block.barriers[warp.read_one_address(instruction.operands[0], mask)]
    lanes = int(mask.sum())

    def arrive() -> None:
        for _ in range(lanes):
            barrier.arrive()

    block.copies.add_behind(warp.number, arrive)


def copy_bulk(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``cp.async.bulk`` from global to shared memory: a run of bytes that a barrier counts when they are there."""
    if "mbarrier" not in instruction.opcode or "tensor" in instruction.parts:
        raise NotImplementedError(str(instruction))
    target, source, size_operand, barrier_operand = instruction.operands
    waited = warp.has_waited(mask)
    for lane in np.flatnonzero(mask):
        to = int(warp.address(target, mask)[lane])
        size = int(warp.read(size_operand, mask)[lane])
        address = warp.address(source, mask)[lane : lane + 1]
        buffer, offset = block.memory.place(address, 1, waited=waited)
        begin = int(offset[0])
        if begin + size > buffer.size or to % 16 or size % 16 or begin % 16:
            raise RuntimeError(f"{size} bytes from {begin} of {buffer.size} to {to}: {instruction}")
        barrier = block.barriers[int(warp.address(barrier_operand, mask)[lane])]
        places = to + np.arange(size)

        def finish(places=places, buffer=buffer, begin=begin, size=size, barrier=barrier) -> None:
            block.shared.write_bytes(places, buffer[begin : begin + size], None)
            barrier.deliver(size)

        block.copies.add_bulk(finish)


def barrier_operation(block: Block, warp: Warp, instruction: Instruction, mask: Mask) -> bool:
    """``mbarrier.{init, arrive, arrive.expect_tx, try_wait.parity, test_wait.parity}``.

    Returns:
        Whether the warp can go on at once; not where it waits in vain.
    """
    kind, operands = instruction.parts[1], instruction.operands
    if kind == "init":
        addresses = np.unique(warp.address(operands[0], mask)[mask])
        for address in addresses:
            block.barriers.init(int(address), warp.read_one(operands[1], mask))
        return True
    if kind == "arrive":
        counted = len(operands) > 2 or (len(operands) > 1 and not operands[1].startswith("["))
        address = operands[0] if operands[0].startswith("[") else operands[1]
        for lane in np.flatnonzero(mask):
            barrier = block.barriers[int(warp.address(address, mask)[lane])]
            if "expect_tx" in instruction.parts:
                barrier.expect(int(warp.read(operands[-1], mask)[lane]))
            elif counted:
                raise NotImplementedError(str(instruction))
            barrier.arrive()
        return True
    if kind in ("try_wait", "test_wait") and "parity" in instruction.parts:
        target, address, parity = operands[:3]
        done = np.zeros(mask.size, np.uint64)
        for lane in np.flatnonzero(mask):
            barrier = block.barriers[int(warp.address(address, mask)[lane])]
            done[lane] = barrier.has_completed(int(warp.read(parity, mask)[lane]) & 1)
        warp.write(target, done, mask)
        return bool(done[mask].all())
    raise NotImplementedError(str(instruction))
