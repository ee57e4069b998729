"""MXFP4: thirty-two 4-bit numbers that share one power-of-two scale.

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.2 (MX format), 5.3.3 (FP4),
5.4.1 (E8M0) and 6.3 (conversion to MX). How gpt-oss packs the codes into bytes is not OCP's but the
checkpoint's: the earlier of two elements lies in the low nibble.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

GROUP_SIZE = 32
"""Elements that share a scale, along the reduced axis."""

BYTES_PER_GROUP = GROUP_SIZE // 2
"""Two 4-bit codes to a byte."""

E8M0_BIAS = 127
"""A scale byte s means 2^(s - 127) (OCP MX v1.0, section 5.4.1)."""

E8M0_NAN = 255
"""The scale byte that means NaN; E8M0 has no zero and no infinity."""

E2M1_MAX_EXPONENT = 2
"""The largest E2M1 power of two is 4 = 2^2 (OCP MX v1.0, section 5.3.3)."""

E2M1_VALUES: Float64 = np.array(
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
)
"""Value of each 4-bit code ``s e1 e0 m``: E2M1 has no NaN and no infinity."""


def decode_e8m0(scales: ArrayLike) -> Float64:
    """Value of scale bytes: ``2^(s - 127)``; byte 0 is 2^-127, byte 255 is NaN.

    Args:
        scales: [...] uint8.

    Returns:
        [...] float64, exact.
    """
    scales = np.asarray(scales, np.uint8)
    values = np.ldexp(1.0, scales.astype(np.int64) - E8M0_BIAS)
    return np.where(scales == E8M0_NAN, np.nan, values)


def decode_e2m1(codes: ArrayLike) -> Float64:
    """Value of 4-bit codes (0..15), from the table.

    Args:
        codes: [...] integers 0..15.

    Returns:
        [...] float64, exact; code 8 is -0.0.
    """
    return E2M1_VALUES[np.asarray(codes)]


def encode_e2m1(values: ArrayLike) -> UInt8:
    """Nearest 4-bit code of each value: ties to the even code, beyond 6 saturates to 6.

    An even code has mantissa bit 0, so this is IEEE 754's ties-to-even. Section 5.3.3 asks for
    saturation and section 6.3 leaves the rounding free; nearest-even is the usual choice.

    Args:
        values: [...] finite floats, already divided by their scale.

    Returns:
        [...] uint8 codes 0..15. The sign survives rounding to zero: -0.1 becomes code 8.
    """
    values = np.asarray(values, np.float64)
    magnitudes = E2M1_VALUES[:8]
    midpoints = (magnitudes[:-1] + magnitudes[1:]) / 2
    # On a midpoint the two searches differ by one: the codes just below and just above it.
    below = np.searchsorted(midpoints, np.abs(values), side="left")
    above = np.searchsorted(midpoints, np.abs(values), side="right")
    codes = np.where(below % 2 == 0, below, above)
    return (codes + 8 * np.signbit(values)).astype(np.uint8)


def pack(codes: ArrayLike) -> UInt8:
    """Two codes to a byte, the earlier in the low nibble.

    Args:
        codes: [..., n] integers 0..15, n even.

    Returns:
        [..., n / 2] uint8.

    Example:
        ``pack([1, 2])`` is ``[0x21]``.
    """
    codes = np.asarray(codes, np.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4


def unpack(packed: ArrayLike) -> UInt8:
    """The codes of packed bytes: the inverse of `pack`.

    Args:
        packed: [..., n] uint8.

    Returns:
        [..., 2n] uint8 codes 0..15.
    """
    packed = np.asarray(packed, np.uint8)
    return np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(
        *packed.shape[:-1], 2 * packed.shape[-1]
    )


def dequantize(blocks: ArrayLike, scales: ArrayLike) -> Float64:
    """``value[k] = e2m1(code[k]) * 2^(scale[k // 32] - 127)``.

    Args:
        blocks: [..., k / 32, 16] uint8, packed codes.
        scales: [..., k / 32] uint8, E8M0.

    Returns:
        [..., k] float64, exact; NaN through every group whose scale is 255.

    Source: OCP MX v1.0, section 5.2.
    """
    scales = np.asarray(scales, np.uint8)
    values = decode_e2m1(unpack(blocks)) * decode_e8m0(scales)[..., None]
    return values.reshape(*scales.shape[:-1], scales.shape[-1] * GROUP_SIZE)


def quantize(x: ArrayLike) -> tuple[UInt8, UInt8]:
    """Scale and codes of each group of 32: the conversion of OCP MX v1.0, section 6.3.

    The shared exponent is ``floor(log2(amax)) - 2``, clamped to what E8M0 holds (-127..127), so the
    largest element lands in [4, 8) and the part of that above 6 saturates: the rule never picks a
    larger scale to avoid it. Cases that the specification leaves open: a group of zeros gets scale
    byte 0; a group with a NaN or an infinity gets scale byte 255 and codes 0, and decodes to NaN.

    Args:
        x: [..., k] floats, k a multiple of 32.

    Returns:
        blocks [..., k / 32, 16] uint8 and scales [..., k / 32] uint8, as `dequantize` takes them.
    """
    x = np.asarray(x, np.float64)
    groups = x.reshape(*x.shape[:-1], x.shape[-1] // GROUP_SIZE, GROUP_SIZE)
    finite = np.isfinite(groups).all(axis=-1)
    groups = np.where(finite[..., None], groups, 0.0)

    amax = np.abs(groups).max(axis=-1)
    floor_log2 = np.frexp(amax)[1] - 1  # frexp gives a mantissa in [0.5, 1), exactly
    exponent = np.clip(floor_log2 - E2M1_MAX_EXPONENT, -E8M0_BIAS, E8M0_BIAS)
    exponent = np.where(amax == 0, -E8M0_BIAS, exponent)

    blocks = pack(encode_e2m1(np.ldexp(groups, -exponent[..., None])))
    scales = np.where(finite, exponent + E8M0_BIAS, E8M0_NAN).astype(np.uint8)
    return blocks, scales
