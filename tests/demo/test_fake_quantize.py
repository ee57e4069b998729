"""Rounding inside training: bit by bit what MXFP4 stores, and no part of the gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.mxfp4 import E2M1_VALUES, dequantize, quantize

torch = pytest.importorskip("torch")

from demo.fake_quantize import StraightThroughMXFP4, round_to_mxfp4  # noqa: E402  (needs it)

Float32 = NDArray[np.float32]

TIES = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.5, 7.0, 7.5], np.float32)
"""Midpoints of neighbouring E2M1 numbers, and what saturates."""


def assert_rounds_as_stored(x: Float32) -> None:
    """Compares bits, along the last axis but one: the reference has the reduced axis last."""
    want = dequantize(*quantize(x.swapaxes(-1, -2))).swapaxes(-1, -2).astype(np.float32)
    got = round_to_mxfp4(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.int32), np.ascontiguousarray(want).view(np.int32))


def groups(values: Float32) -> Float32:
    """Columns [1, 32, N] that hold each value once, the rest zeros but for a 4.0 that fixes the scale at 1."""
    x = np.zeros((1, 32, values.size), np.float32)
    x[0, 3] = 4.0
    x[0, 17] = values
    return x


@pytest.mark.parametrize("shape", [(1, 32, 1), (3, 96, 5), (2, 64, 33), (64, 7), (0, 32, 4)])
def test_random_weights(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    spread = np.exp2(rng.integers(-20, 20, shape))
    assert_rounds_as_stored((rng.standard_normal(shape) * spread).astype(np.float32))


def test_groups_are_cut_along_the_last_axis_but_one() -> None:
    x = np.ones((1, 64, 2), np.float32)
    x[0, :32, 0] = 1024.0
    x[0, 5, 0] = 1.0
    rounded = round_to_mxfp4(torch.from_numpy(x)).numpy()
    x[0, 5, 0] = 0.0  # beside 1024, where the smallest number is 128; everything else is kept
    np.testing.assert_array_equal(rounded, x)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exponent", [-120, -10, 0, 10, 120])
def test_ties_and_their_neighbours(sign: int, exponent: int) -> None:
    values = np.concatenate([TIES, np.nextafter(TIES, 0), np.nextafter(TIES, 8), E2M1_VALUES])
    assert_rounds_as_stored(np.ldexp(sign * groups(values.astype(np.float32)), exponent))


def test_ties_go_to_the_even_code() -> None:
    values = groups(np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0], np.float32))
    rounded = round_to_mxfp4(torch.from_numpy(values))[0, 17]
    assert rounded.tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]


def test_a_group_of_every_size_that_float32_has() -> None:
    exponents = np.arange(-149, 128)
    values = np.concatenate([[1.0], np.linspace(-1.9, 1.9, 31)])
    x = np.ldexp(values[:, None], exponents).astype(np.float32)
    assert x.any(axis=0).all()
    assert_rounds_as_stored(x[None])


def test_zeros_keep_their_signs() -> None:
    x = np.zeros((2, 32, 3), np.float32)
    x[:, ::2] = -0.0
    assert_rounds_as_stored(x)


@settings(deadline=None)  # tests do not time
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=32, max_size=32)
)
def test_any_group(values: list[float]) -> None:
    assert_rounds_as_stored(np.array(values, np.float32).reshape(1, 32, 1))


def test_the_forward_pass_sees_the_rounded_weight(rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.standard_normal((3, 64, 40), dtype=np.float32))
    assert torch.equal(StraightThroughMXFP4()(weight), round_to_mxfp4(weight))


def test_the_gradient_does_not_notice(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((3, 64, 40), dtype=np.float32))
    weight = x.clone().requires_grad_()
    gradient = torch.from_numpy(rng.standard_normal((3, 64, 40), dtype=np.float32))
    StraightThroughMXFP4()(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)
    assert torch.equal(weight.detach(), x)
