"""What computes in registers: each function takes a warp's operands as bits and gives bits."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.ptx_emulator.numbers import (
    Bits,
    decode_bfloat16,
    encode_bfloat16,
    from_bits,
    to_bits,
    width,
)

COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}

Compute = Callable[..., Bits]


def _typed(function: Callable[..., ArrayLike]) -> Callable[..., Bits]:
    """Makes an operation on numbers of the instruction's type one on bits."""

    def compute(type_name: str, *operands: Bits) -> Bits:
        return to_bits(function(*(from_bits(x, type_name) for x in operands)), type_name)

    return compute


def _shift(left: bool) -> Compute:
    """Shifts clamp: by the width or more, nothing is left but a signed number's sign."""

    def compute(type_name: str, x: Bits, by: Bits) -> Bits:
        bits = width(type_name)
        amount = np.minimum(by & np.uint64(0xFFFF_FFFF), np.uint64(bits))
        if left:
            wide = np.where(amount < 64, x << np.minimum(amount, np.uint64(63)), np.uint64(0))
            return to_bits(wide, f"u{bits}")
        if type_name.startswith("s"):
            signed = from_bits(x, type_name).astype(np.int64)
            return to_bits(signed >> np.minimum(amount, np.uint64(63)).astype(np.int64), type_name)
        narrow = to_bits(x, f"u{bits}")
        return np.where(amount < 64, narrow >> np.minimum(amount, np.uint64(63)), np.uint64(0))

    return compute


def _funnel(left: bool) -> Compute:
    def compute(_: str, low: Bits, high: Bits, by: Bits) -> Bits:
        both = (high & np.uint64(0xFFFF_FFFF)) << np.uint64(32) | (low & np.uint64(0xFFFF_FFFF))
        amount = by & np.uint64(31)
        if left:
            return to_bits((both << amount) >> np.uint64(32), "u32")
        return to_bits(both >> amount, "u32")

    return compute


def _permute(_: str, low: Bits, high: Bits, selector: Bits) -> Bits:
    """Each nibble of the selector picks a byte of the eight; its top bit spreads that byte's sign."""
    both = (high & np.uint64(0xFFFF_FFFF)) << np.uint64(32) | (low & np.uint64(0xFFFF_FFFF))
    result = np.zeros_like(low)
    for i in range(4):
        choice = selector >> np.uint64(4 * i)
        byte = both >> (np.uint64(8) * (choice & np.uint64(7))) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        byte = np.where(choice & np.uint64(8), sign, byte)
        result |= byte << np.uint64(8 * i)
    return result


def _logic(_: str, a: Bits, b: Bits, c: Bits, table: Bits) -> Bits:
    result = np.zeros_like(a)
    for i in range(8):
        term = np.where(table >> np.uint64(i) & np.uint64(1), ~np.uint64(0), np.uint64(0))
        for operand, bit in ((a, 4), (b, 2), (c, 1)):
            term &= operand if i & bit else ~operand
        result |= term
    return to_bits(result, "u32")


def _extract(type_name: str, x: Bits, position: Bits, length: Bits) -> Bits:
    if not type_name.startswith("u"):
        raise NotImplementedError(f"bfe.{type_name}")
    amount = np.minimum(length & np.uint64(255), np.uint64(63))
    mask = (np.uint64(1) << amount) - np.uint64(1)
    return to_bits(x >> (position & np.uint64(255)) & mask, type_name)


def _multiply_high(type_name: str, a: Bits, b: Bits) -> Bits:
    bits = width(type_name)
    products = [
        (int(x) * int(y)) >> bits & ((1 << bits) - 1)
        for x, y in zip(from_bits(a, type_name), from_bits(b, type_name), strict=True)
    ]
    return np.array(products, np.uint64)


def _multiply_wide(type_name: str, a: Bits, b: Bits) -> Bits:
    wide = f"{type_name[0]}{2 * width(type_name)}"
    numbers = [from_bits(x, type_name).astype(from_bits(x, wide).dtype) for x in (a, b)]
    return to_bits(numbers[0] * numbers[1], wide)


def _pairs(function: Callable[..., ArrayLike]) -> Compute:
    """Makes an operation on numbers one on both bfloat16 halves, rounded once."""

    def compute(_: str, *operands: Bits) -> Bits:
        halves = []
        for shift in (np.uint64(0), np.uint64(16)):
            numbers = [decode_bfloat16(x >> shift & np.uint64(0xFFFF)) for x in operands]
            halves.append(encode_bfloat16(function(*numbers)))
        return halves[0] | halves[1] << np.uint64(16)

    return compute


OPERATIONS: dict[str, Compute] = {
    "add": _typed(np.add),
    "sub": _typed(np.subtract),
    "mul.lo": _typed(np.multiply),
    "mul.hi": _multiply_high,
    "mul.wide": _multiply_wide,
    "mul": _typed(np.multiply),
    "mad.lo": _typed(lambda a, b, c: a * b + c),
    "div": _typed(lambda a, b: a / b if a.dtype.kind == "f" else a // b),
    "rem": _typed(np.fmod),
    "neg": _typed(np.negative),
    "abs": _typed(np.abs),
    "min": _typed(np.fmin),
    "min.NaN": _typed(np.minimum),
    "max": _typed(np.fmax),
    "max.NaN": _typed(np.maximum),
    "and": _typed(np.bitwise_and),
    "or": _typed(np.bitwise_or),
    "xor": _typed(np.bitwise_xor),
    "not": _typed(np.invert),
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "shf.l": _funnel(left=True),
    "shf.r": _funnel(left=False),
    "prmt": _permute,
    "lop3": _logic,
    "bfe": _extract,
    "ex2": _typed(np.exp2),
    "rcp": _typed(np.reciprocal),
    "fma.f32": _typed(
        lambda a, b, c: a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    ),
    "mul.bf16x2": _pairs(np.multiply),
    "fma.bf16x2": _pairs(lambda a, b, c: a * b + c),
    "mov": lambda _, x: x,
    "cvta": lambda _, x: x,
}
"""By the opcode's first part, and the modifier or type that changes what it computes."""

_IGNORED = {"rn", "ftz", "approx", "full", "wrap", "to", "global", "shared", "param"}
"""Modifiers that change a result by less than is told apart here, or not at all."""


@functools.cache
def find(parts: tuple[str, ...]) -> Callable[..., Bits] | None:
    """Gives what an instruction computes, or None where it computes nothing known here.

    Args:
        parts: of the opcode.
    """
    name, *modifiers = (part for part in parts if part.partition("::")[0] not in _IGNORED)
    if not modifiers:
        return None
    *modifiers, type_name = modifiers
    known = OPERATIONS.get(".".join([name, *modifiers]))
    if known is None or type_name in ("bf16x2", "f32"):
        known = OPERATIONS.get(".".join([name, *modifiers, type_name]), known)
    if known is None or (type_name == "bf16x2" and f"{name}.bf16x2" not in OPERATIONS):
        return None
    return lambda *operands: known(type_name, *operands)


def convert(target: str, source: str, x: Bits, modifiers: tuple[str, ...]) -> Bits:
    """Converts between types: what ``cvt`` does.

    Args:
        target: type of the result.
        source: type of x.
        x: bits.
        modifiers: of the opcode, which must round as the types here do.
    """
    if not set(modifiers) <= {"rn", "rzi", "ftz"}:
        raise NotImplementedError(f"cvt.{'.'.join(modifiers)}")
    if source == "bf16":
        return to_bits(decode_bfloat16(x & np.uint64(0xFFFF)), target)
    values = from_bits(x, source)
    if target == "bf16":
        return encode_bfloat16(values)
    return to_bits(values, target)


def compare(comparison: str, type_name: str, a: Bits, b: Bits) -> NDArray[np.bool_]:
    """Compares: what ``setp`` does. A comparison with NaN is false, but for those that end in u."""
    values = from_bits(a, type_name), from_bits(b, type_name)
    if comparison.endswith("u") and comparison[:-1] in COMPARISONS:
        unordered = np.isnan(values[0]) | np.isnan(values[1])
        return COMPARISONS[comparison[:-1]](*values) | unordered
    return COMPARISONS[comparison](*values)
