"""MXFP4 of arrays: shapes, strides and messages; what the op computes is tested with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt_oss_mxfp4.quantize import quantize_array
from tests.reference import mxfp4


def assert_quantized(x: Any) -> None:
    got, want = quantize_array(x), mxfp4.quantize(x)
    for got_bytes, want_bytes in zip(got, want, strict=True):
        assert got_bytes.dtype == np.uint8
        np.testing.assert_array_equal(got_bytes, want_bytes)


@pytest.mark.parametrize(
    "shape", [(32,), (1, 32), (7, 96), (2, 3, 2880), (2, 1, 3, 64), (0, 64), (2, 0, 64)]
)
def test_any_leading_axes(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    assert_quantized(rng.standard_normal(shape, dtype=np.float32))


def test_no_columns() -> None:
    blocks, scales = quantize_array(np.zeros((3, 0), np.float32))
    assert (blocks.shape, scales.shape) == ((3, 0, 16), (3, 0))


def test_strided_read_only_and_unaligned_arrays(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 64, 96), dtype=np.float32)
    assert_quantized(x.swapaxes(1, 2))
    assert_quantized(x[:, ::-2, 32:])
    x.flags.writeable = False
    assert_quantized(x)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1)
    assert_quantized(unaligned.reshape(x.shape))


def test_results_outlive_later_calls(rng: np.random.Generator) -> None:
    x = rng.standard_normal((8, 64, 96), dtype=np.float32)
    results = [quantize_array(part) for part in x]
    for part, (blocks, scales) in zip(x, results, strict=True):
        want_blocks, want_scales = mxfp4.quantize(part)
        np.testing.assert_array_equal(blocks, want_blocks)
        np.testing.assert_array_equal(scales, want_scales)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 32)), "x must be float32, got float64"),
        (np.zeros((2, 32), np.uint16), "x must be float32, got uint16"),
        (np.float32(1).reshape(()), "x must have rank 1 or more, got shape ()"),
        (np.zeros((2, 48), np.float32), "x.shape[-1] must be a multiple of 32, got 48"),
    ],
)
def test_what_is_refused(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match="mxfp4") as error:
        quantize_array(x)
    assert str(error.value) == f"mxfp4.quantize: {message}"
