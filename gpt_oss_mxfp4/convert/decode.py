"""MXFP4 to bfloat16 and to float32 by tables: integers in, bits out, so that no mode of the CPU matters."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, E2M1_VALUES, E8M0_BIAS, E8M0_NAN, GROUP_SIZE

_STRIP = 128
"""Rows: a quarter of the time of NumPy's own copy, [5760, 2880] on a Zen 4; 32 take half of it, 256 as little."""

EXPONENT_BITS = 0x7F80
"""bfloat16's exponent: all ones are an infinity or NaN."""


def decode_bfloat16(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Bits of the bfloat16 numbers that MXFP4 stands for.

    Exact but where no bfloat16 is large enough: there, that is for 4 and 6 under scale byte 253 and 2 and more under
    254, the bits are an infinity's. Under 255 they are NaN's. The smallest, 0.5 * 2^-127, is a subnormal bfloat16.

    Args:
        blocks: [..., K/32, 16] uint8.
        scales: [..., K/32] uint8.

    Returns:
        [..., K] uint16.
    """
    pairs = _pairs().take(scales[..., None].astype(np.uint16) << 8 | blocks)
    return pairs.view(np.uint16).reshape(*scales.shape[:-1], scales.shape[-1] * GROUP_SIZE)


def transposed(x: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """A matrix transposed and contiguous, strips of rows at a time: a line of cache is read once, not once a row."""
    out = np.empty(x.shape[::-1], x.dtype)
    for begin in range(0, x.shape[0], _STRIP):
        strip = slice(begin, begin + _STRIP)
        out[:, strip] = x[strip].T
    return out


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bits as float32 numbers, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@functools.cache
def _pairs() -> NDArray[np.uint32]:
    """The two numbers of a byte under a scale: [scale << 8 | byte], the earlier in the low half."""
    values = np.array(E2M1_VALUES)
    scales = np.arange(256)
    with np.errstate(over="ignore"):
        wide = np.ldexp(values, scales[:, None] - E8M0_BIAS).astype(np.float32)
    wide[E8M0_NAN] = np.nan
    # A value has two significant bits: where float32 has it, the low half of float32's bits is zero.
    bits = (wide.view(np.uint32) >> 16).astype(np.uint32)
    codes = np.arange(256)
    return np.ascontiguousarray(bits[:, codes & 0xF] | bits[:, codes >> 4] << 16).reshape(-1)


def as_blocks(data: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """Bytes of codes as [rows, K/32, 16]."""
    return data.reshape(rows, -1, BYTES_PER_GROUP)
