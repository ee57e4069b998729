"""Products of bfloat16: `wgmma.mma_async`, A in registers and B in shared memory, and `mma.sync`, both in registers.

Each warp of a warpgroup makes 16 of the 64 rows of a wgmma. When that happens between the instruction and the wait that
retires it is hardware's choice; here it is `Mode.EAGER`, at once, or `Mode.LAZY`, at the wait: a register or a byte
that is overwritten in between is caught by the one, a sum that is read too soon by the other.

Source: PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Instructions": register fragments, matrix descriptor,
128-byte swizzle; "Matrix Fragments for mma.m16n8k16 with floating point type".
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.ptx_emulator.memory import SharedMemory
from tests.ptx_emulator.numbers import decode_bfloat16, from_bits, to_bits
from tests.ptx_emulator.program import Instruction
from tests.ptx_emulator.warp import ALL, LANES, Mask, Warp, vector

_LANE = np.arange(LANES)
_SHAPE = re.compile(r"^wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.bf16\.bf16$")
_SWIZZLE_128B = 1


class Mode(enum.Enum):
    """When products are made."""

    EAGER = enum.auto()
    LAZY = enum.auto()


@dataclass(frozen=True)
class _Product:
    """An instruction, and the descriptor as it was when it was issued."""

    sums: Sequence[str]
    a: Sequence[str]
    descriptor: int
    columns: int
    accumulate: bool


class TensorCore:
    """The part of the tensor core that serves one warp.

    Args:
        warp: whose registers it reads and writes.
        shared: its block's shared memory.
        mode: when it works.
    """

    def __init__(self, warp: Warp, shared: SharedMemory, mode: Mode) -> None:
        self._warp = warp
        self._shared = shared
        self._mode = mode
        self._open: list[_Product] = []
        self._groups: deque[list[_Product]] = deque()

    def issue(self, instruction: Instruction) -> None:
        """Takes a product.

        Raises:
            NotImplementedError: another shape, type or form.
        """
        shape = _SHAPE.match(instruction.opcode)
        sums, a, descriptor, accumulate, *constants = instruction.operands
        if not shape or constants != ["1", "1", "0"] or not a.startswith("{"):
            raise NotImplementedError(str(instruction))
        product = _Product(
            vector(sums),
            vector(a),
            self._warp.read_one(descriptor, ALL),
            int(shape[1]),
            bool(self._warp.read_one(accumulate, ALL)),
        )
        self._open.append(product)
        if self._mode is Mode.EAGER:
            self._multiply(product)

    def commit(self) -> None:
        """Closes a group."""
        self._groups.append(self._open)
        self._open = []

    def wait(self, pending: int) -> None:
        """Retires all groups but the last ``pending``."""
        while len(self._groups) > pending:
            for product in self._groups.popleft():
                if self._mode is Mode.LAZY:
                    self._multiply(product)

    def check_retired(self) -> None:
        """Raises if a warp ends with products that nobody waited for."""
        if self._open or self._groups:
            raise RuntimeError(f"warp {self._warp.number} ends with products in flight")

    def _multiply(self, product: _Product) -> None:
        products = _read_a(self._warp, product.a) @ self._read_b(product).T
        _add(self._warp, product.sums, product.sums if product.accumulate else None, products)

    def _read_b(self, product: _Product) -> np.ndarray:
        """Gives B, [columns, 16], K-major: eight rows of 128 bytes, then the next eight, swizzled in 16-byte parts."""
        descriptor = product.descriptor
        if descriptor >> 62 != _SWIZZLE_128B or descriptor >> 49 & 7:
            raise NotImplementedError(
                f"descriptor {descriptor:#x}: 128-byte swizzle, no base offset"
            )
        start = (descriptor & 0x3FFF) << 4
        stride = (descriptor >> 32 & 0x3FFF) << 4
        n, k = np.meshgrid(np.arange(product.columns), np.arange(16), indexing="ij")
        places = start + n // 8 * stride + n % 8 * 128 + 2 * k
        places ^= (places >> 7 & 7) << 4
        both = self._shared.read_async(places[..., None] + np.arange(2), self._warp.number)
        return decode_bfloat16(both[..., 0].astype(np.uint32) | both[..., 1].astype(np.uint32) << 8)


def multiply_at_once(_: object, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``mma.sync.aligned.m16n8k16``.

    Raises:
        NotImplementedError: another shape or type.
    """
    if instruction.opcode != "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32":
        raise NotImplementedError(str(instruction))
    d, a, b, c = map(vector, instruction.operands)
    of_b = np.zeros((8, 16))
    for register, name in enumerate(b):
        bits = warp.read(name, ALL)
        for half in range(2):
            k = 2 * (_LANE % 4) + half + 8 * register
            of_b[_LANE // 4, k] = decode_bfloat16(bits >> np.uint64(16 * half) & np.uint64(0xFFFF))
    _add(warp, d, c, _read_a(warp, a) @ of_b.T)


def transpose_matrix(_: object, warp: Warp, instruction: Instruction, mask: Mask) -> None:
    """``movmatrix``: of a matrix of 8 by 8, lane l has two elements of row l / 4, before and after.

    Source: PTX ISA 9.0, "Warp-level matrix transpose instruction: movmatrix".
    """
    if instruction.opcode != "movmatrix.sync.aligned.m8n8.trans.b16":
        raise NotImplementedError(str(instruction))
    target, source = instruction.operands
    bits = warp.read(source, ALL)
    matrix = np.stack([bits & np.uint64(0xFFFF), bits >> np.uint64(16)], axis=1).reshape(8, 8)
    low, high = matrix.T.reshape(LANES, 2).T
    warp.write(target, low | high << np.uint64(16), ALL)


def _read_a(warp: Warp, names: Sequence[str]) -> np.ndarray:
    """Gives a warp's rows of A, [16, 16]."""
    a = np.zeros((16, 16))
    for register, name in enumerate(names):
        bits = warp.read(name, ALL)
        for half in range(2):
            rows = _LANE // 4 + 8 * (register & 1)
            k = 2 * (_LANE % 4) + half + 8 * (register >> 1)
            a[rows, k] = decode_bfloat16(bits >> np.uint64(16 * half) & np.uint64(0xFFFF))
    return a


def _add(
    warp: Warp, targets: Sequence[str], sources: Sequence[str] | None, products: np.ndarray
) -> None:
    """Adds products [16, columns] to sums in registers, or to nothing."""
    for i, target in enumerate(targets):
        rows = _LANE // 4 + 8 * (i >> 1 & 1)
        columns = 8 * (i >> 2) + 2 * (_LANE % 4) + (i & 1)
        total = products[rows, columns]
        if sources is not None:
            total = total + from_bits(warp.read(sources[i], ALL), "f32").astype(np.float64)
        warp.write(target, to_bits(total, "f32"), ALL)
