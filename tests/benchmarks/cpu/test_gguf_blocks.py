"""GGUF's MXFP4 blocks against a dequantizer that is written from GGUF's side, and from this alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu.gguf_blocks import repack_mxfp4
from tests.reference import mxfp4

DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float64)
"""ggml's kvalues_mxfp4: twice the E2M1 values."""


def dequantize_gguf(blocks: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[..., 17] to [..., 32]: value j of the low nibbles, then of the high ones, times 2^(scale - 128)."""
    codes = np.concatenate([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1)
    return DOUBLED[codes] * np.ldexp(1.0, blocks[..., :1].astype(np.int64) - 128)


def test_every_code_at_every_place_keeps_its_place() -> None:
    """One code that is not zero: 32 places times 16 codes, a bijection of the group's bytes."""
    codes = np.zeros((32, 16, 32), np.uint8)
    for place in range(32):
        codes[place, :, place] = np.arange(16)
    scales = np.full((32, 16), 127, np.uint8)
    packed = repack_mxfp4(mxfp4.pack(codes), scales).reshape(32, 16, 17)
    low, high = packed[..., 1:] & 15, packed[..., 1:] >> 4
    assert np.array_equal(np.concatenate([low, high], axis=-1), codes)


def test_values_are_the_checkpoints_for_every_scale() -> None:
    scales = np.arange(255, dtype=np.uint8).reshape(
        3, 85
    )  # 255 is NaN in OCP's format, 2^127 in ggml's
    blocks = np.random.default_rng(0).integers(0, 256, (3, 85, 16), np.uint8)
    packed = repack_mxfp4(blocks, scales)
    assert packed.shape == (3, 85 * 17)
    got = dequantize_gguf(packed.reshape(3, 85, 17)).reshape(3, -1)
    assert np.array_equal(got, mxfp4.dequantize(blocks, scales))


def test_a_block_by_hand() -> None:
    """Codes 0, 1 ... 15, 0, 1 ... 15: the checkpoint's byte 0 is 0x10, GGUF's 0x00, as code 16 is 0 again."""
    blocks = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE] * 2], np.uint8)
    packed = repack_mxfp4(blocks, np.array([121], np.uint8))
    assert packed.tolist() == [121, *[17 * i for i in range(16)]]


def test_strided_rows_are_taken_as_they_are() -> None:
    """Gate and up are every other row of one tensor."""
    blocks = np.random.default_rng(1).integers(0, 256, (6, 2, 16), np.uint8)
    scales = np.random.default_rng(2).integers(0, 256, (6, 2), np.uint8)
    assert np.array_equal(
        repack_mxfp4(blocks[1::2], scales[1::2]), repack_mxfp4(blocks, scales)[1::2]
    )
