"""Dense layers: what inputs are rounded to, and weights of 8 bits with a scale per group of 32.

Source: for MXFP8, OCP Microscaling Formats (MX) v1.0, sections 5.3.1 (E4M3) and 6.3 (conversion). The integer forms are
this project's own: a group's scale is its largest magnitude / 127.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16, round_to_bfloat16
from tests.reference.mxfp4 import GROUP_SIZE, decode_e8m0

Float64 = NDArray[np.float64]
Activations = Literal["float32", "bfloat16", "int8"]
"""What a matmul's input is rounded to: "float32" stands for no rounding, float64 here."""

E4M3_MAX_EXPONENT = 8
"""The largest E4M3 power of two is 256 = 2^8 (section 5.3.1)."""


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activations: Activations = "float32",
) -> Float64:
    """``x @ weight.T + bias`` for weight [N, K], x being rounded first."""
    y = round_activations(x, activations) @ np.asarray(weight, np.float64).T
    return y if bias is None else y + np.asarray(bias)


def round_activations(x: ArrayLike, activations: Activations) -> Float64:
    """What a matmul multiplies instead of its input [..., K]."""
    x = np.asarray(x, np.float64)
    if activations == "bfloat16":
        return round_to_bfloat16(x)
    if activations == "int8":
        groups = x.astype(np.float32).reshape(*x.shape[:-1], x.shape[-1] // GROUP_SIZE, GROUP_SIZE)
        scales = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
        scales = np.where(scales < np.float32(2.0**-126), np.float32(0), scales)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(scales > 0, np.float32(1) / scales, np.float32(0))
        rounded = np.rint(groups * inverse) * scales.astype(np.float64)
        return rounded.reshape(x.shape)
    return x


def quantize_int8(w: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.uint16]]:
    """Values [N, K] and scales [N, K/32], as bits of bfloat16, of weights [N, K]; a scale is rounded up.

    A group with a NaN or an infinity has the scale NaN and values 0.
    """
    groups = _groups(w)
    finite = np.asarray(np.isfinite(groups).all(axis=-1))
    largest = np.where(finite, np.abs(groups).max(axis=-1), 0).astype(np.float32)
    exact = largest / np.float32(127)
    bits = encode_bfloat16(exact)
    bits = bits + (decode_bfloat16(bits) < exact).astype(np.uint16)
    scales = decode_bfloat16(bits).astype(np.float64)[..., None]
    ratio = np.divide(
        groups, scales, out=np.zeros_like(groups), where=finite[..., None] & (scales > 0)
    )
    values = np.rint(ratio.astype(np.float32)).astype(np.int8)
    return values.reshape(np.shape(w)), np.where(finite, bits, 0x7FC0).astype(np.uint16)


def dequantize_int8(values: ArrayLike, scales: ArrayLike) -> Float64:
    """``values * scales``, [N, K]."""
    groups = np.asarray(values, np.float64).reshape(*np.shape(scales), GROUP_SIZE)
    return (groups * decode_bfloat16(scales).astype(np.float64)[..., None]).reshape(
        np.shape(values)
    )


def decode_e4m3(codes: ArrayLike) -> Float64:
    """Value of each byte ``s eeee mmm``: bias 7, subnormals, no infinity; 0x7F and 0xFF are NaN."""
    codes = np.asarray(codes, np.int64)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    magnitude = np.where(
        exponent > 0, np.ldexp(8.0 + mantissa, exponent - 10), np.ldexp(1.0 * mantissa, -9)
    )
    magnitude = np.where(codes & 0x7F == 0x7F, np.nan, magnitude)
    return np.where(codes & 0x80, -magnitude, magnitude)


def encode_e4m3(values: ArrayLike) -> NDArray[np.uint8]:
    """Nearest byte of finite values, ties to the even code; beyond 448 saturates."""
    values = np.asarray(values, np.float64)
    codes = np.arange(0x7F)  # magnitudes ascend with the code
    midpoints = (decode_e4m3(codes[:-1]) + decode_e4m3(codes[1:])) / 2
    magnitude = np.abs(values)
    low = np.searchsorted(midpoints, magnitude, side="left")
    high = np.searchsorted(midpoints, magnitude, side="right")
    nearest = np.where(low % 2 == 0, low, high)  # they differ on a midpoint alone
    return (nearest | np.where(np.signbit(values), 0x80, 0)).astype(np.uint8)


def quantize_mxfp8(w: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """E4M3 bytes [N, K] and E8M0 scales [N, K/32] of weights [N, K]."""
    groups = _groups(w)
    finite = np.asarray(np.isfinite(groups).all(axis=-1))
    largest = np.where(finite, np.abs(groups).max(axis=-1), 0)
    exponent = np.frexp(largest)[1] - 1 - E4M3_MAX_EXPONENT
    scales = np.where(largest > 0, np.clip(exponent, -127, 127) + 127, 0).astype(np.uint8)
    ratio = np.where(finite[..., None], groups, 0) / decode_e8m0(scales)[..., None]
    codes = encode_e4m3(ratio)
    return codes.reshape(np.shape(w)), np.where(finite, scales, 255).astype(np.uint8)


def dequantize_mxfp8(codes: ArrayLike, scales: ArrayLike) -> Float64:
    """``e4m3(codes) * 2^(scales - 127)``, [N, K]."""
    groups = decode_e4m3(codes).reshape(*np.shape(scales), GROUP_SIZE)
    return (groups * decode_e8m0(scales)[..., None]).reshape(np.shape(codes))


def _groups(w: ArrayLike) -> Float64:
    w = np.asarray(w, np.float64)
    return w.reshape(*w.shape[:-1], w.shape[-1] // GROUP_SIZE, GROUP_SIZE)
