"""PTX's types in NumPy, and bfloat16, which NumPy does not have."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference import bfloat16

Bits = NDArray[np.uint64]
"""A register of a warp: one to a lane."""

TYPES: dict[str, type] = {
    **{f"{kind}{bits}": getattr(np, f"uint{bits}") for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    "f32": np.float32,
    "f64": np.float64,
    "pred": np.bool_,
}


def width(type_name: str) -> int:
    """Bits of a type; a predicate is one."""
    return 1 if type_name == "pred" else int(type_name.lstrip("busfx").removesuffix("x2"))


def from_bits(bits: Bits, type_name: str) -> NDArray[np.generic]:
    """Takes bits as numbers of a type."""
    number = np.dtype(TYPES[type_name])
    return bits.astype(f"u{number.itemsize}").view(number)


def to_bits(values: ArrayLike, type_name: str) -> Bits:
    """Gives the bits of numbers; integers wrap around."""
    number = np.dtype(TYPES[type_name])
    array = np.ascontiguousarray(np.asarray(values).astype(number))
    return array.view(f"u{number.itemsize}").astype(np.uint64)


def decode_bfloat16(bits: ArrayLike) -> NDArray[np.float64]:
    """Values of bfloat16 bits, exact, wide enough for exact products."""
    return bfloat16.decode_bfloat16(bits).astype(np.float64)


def encode_bfloat16(values: ArrayLike) -> NDArray[np.uint64]:
    """Bits of the nearest bfloat16, ties to even, subnormals kept.

    Straight from float64, rounded once; `tests.reference.bfloat16` rounds to float32 first, as kernels on a CPU do.
    """
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.where(np.isfinite(values), np.abs(values), 0.0)
        _, exponent = np.frexp(magnitude)
        ulp = np.maximum(exponent - 8, -133)  # 8 bits of mantissa; subnormals step by 2^-133
        rounded = np.ldexp(np.rint(np.ldexp(magnitude, -ulp)), ulp)
        rounded = np.where(np.isinf(values), np.inf, rounded)
        single = np.copysign(rounded, values).astype(np.float32)
    bits = single.view(np.uint32) >> 16
    return np.where(np.isnan(values), 0x7FC0, bits).astype(np.uint64)
