"""bfloat16 in NumPy, which has no such type: the upper sixteen bits of a float32.

Source: the format is IEEE 754 binary32 with the mantissa cut to 7 bits; rounding is to nearest, ties
to even, as every processor's conversion instruction does it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def encode_bfloat16(x: ArrayLike) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even; beyond the largest finite one is infinity.

    Args:
        x: [...] floats, taken as float32 first, as the kernels have them.

    Returns:
        [...] uint16.
    """
    x = np.asarray(x).astype(np.float32)
    bits = x.view(np.uint32)
    # Adding just under half of the last kept bit carries exactly when rounding up is right; a tie
    # carries only if the last kept bit is odd.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    # The carry could turn a NaN with a long mantissa into an infinity.
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def decode_bfloat16(bits: ArrayLike) -> NDArray[np.float32]:
    """Value of bfloat16 bits, exact.

    Args:
        bits: [...] uint16.

    Returns:
        [...] float32.
    """
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def round_to_bfloat16(x: ArrayLike) -> NDArray[np.float64]:
    """The nearest bfloat16 of each value, as float64.

    Args:
        x: [...] floats.

    Returns:
        [...] float64.
    """
    return decode_bfloat16(encode_bfloat16(x)).astype(np.float64)
