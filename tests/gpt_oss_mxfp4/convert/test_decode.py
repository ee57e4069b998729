"""MXFP4 to bfloat16: every code under every scale."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_oss_mxfp4.convert.decode import decode_bfloat16, transposed, widen
from tests.reference import mxfp4
from tests.reference.bfloat16 import decode_bfloat16 as reference_widen


def every_group() -> tuple[np.ndarray, np.ndarray]:
    """A group of each scale byte for each byte of two codes in all sixteen places: [256, 256 groups, 16]."""
    bytes_ = np.arange(256, dtype=np.uint8)
    blocks = np.broadcast_to(bytes_[None, :, None], (256, 256, 16))
    scales = np.broadcast_to(bytes_[:, None], (256, 256))
    return np.ascontiguousarray(blocks), np.ascontiguousarray(scales)


def test_every_code_under_every_scale_is_exact_or_an_infinity() -> None:
    blocks, scales = every_group()
    want = mxfp4.dequantize(blocks, scales)
    got = reference_widen(decode_bfloat16(blocks, scales)).astype(np.float64)
    finite = np.abs(want) < 2.0**128
    np.testing.assert_array_equal(got[finite], want[finite])
    assert np.isinf(got[~finite & ~np.isnan(want)]).all()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]))
    overflow = np.unique(scales[np.flatnonzero(np.isinf(got).any(axis=1))])
    assert overflow.tolist() == [253, 254]


def test_the_smallest_is_a_subnormal_bfloat16() -> None:
    block = np.full((1, 16), 0x91, np.uint8)  # 0.5 in the low nibble, -0.5 in the high
    bits = decode_bfloat16(block, np.zeros(1, np.uint8))
    assert bits[:2].tolist() == [0x0020, 0x8020]
    assert widen(bits)[0] == 2.0**-128


def test_the_earlier_element_is_in_the_low_nibble() -> None:
    block = np.zeros((1, 16), np.uint8)
    block[0, 3] = 0x72
    values = widen(decode_bfloat16(block, np.full(1, 127, np.uint8)))
    assert values[6:8].tolist() == [1.0, 6.0]


@pytest.mark.parametrize("shape", [(1, 1), (128, 3), (129, 64), (300, 0), (0, 5), (5, 300)])
def test_strips_make_up_the_transposed_matrix(shape: tuple[int, int]) -> None:
    x = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    got = transposed(x)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, x.T)
