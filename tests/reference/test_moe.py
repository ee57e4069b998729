"""The reference's experts on examples small enough to do by hand."""

import numpy as np
import pytest

from tests.reference.moe import (
    ExpertWeights,
    combine,
    experts,
    group,
    grouped_matmul,
    grouped_matmul_swiglu,
    route,
    swiglu,
)
from tests.reference.mxfp4 import dequantize, quantize


def random_weights(rng, num_experts, n, k):
    blocks, scales = quantize(rng.standard_normal((num_experts, n, k)) / np.sqrt(k))
    return ExpertWeights(blocks, scales, rng.standard_normal((num_experts, n)))


def test_route_breaks_ties_by_lower_id():
    ids, weights = route([[1.0, 3.0, 3.0, 1.0, 3.0, 1.0]], 4)
    assert ids.tolist() == [[1, 2, 4, 0]]
    assert ids.dtype == np.int32
    e = np.exp(-2.0)
    np.testing.assert_allclose(weights, [np.array([1, 1, 1, e]) / (3 + e)], rtol=1e-15)


def test_route_softmax_leaves_the_others_out():
    _, weights = route([[0.0, 0.0, -1e-9, -1e-9, -1e-9]], 2)
    assert weights.tolist() == [[0.5, 0.5]]


def test_route_survives_large_logits():
    _, weights = route([[1e5, 0.0, -1e5]], 2)
    assert weights.tolist() == [[1.0, 0.0]]


def test_group_is_stable():
    order, places, offsets = group([[2, 0], [0, 2], [2, 0]], 4)
    assert order.tolist() == [1, 2, 5, 0, 3, 4]
    assert places.tolist() == [[3, 0], [1, 4], [5, 2]]
    assert offsets.tolist() == [0, 3, 3, 6, 6]
    assert order.dtype == places.dtype == offsets.dtype == np.int32


def test_group_of_nothing():
    order, places, offsets = group(np.empty((0, 4), int), 3)
    assert order.tolist() == []
    assert places.shape == (0, 4)
    assert offsets.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("gate", "up", "want"),
    [
        (0.0, 5.0, 0.0),
        (1.0, 0.0, 1 / (1 + np.exp(-1.702))),
        (100.0, 0.0, 7 / (1 + np.exp(-1.702 * 7))),  # gate clamped above
        (-100.0, 0.0, -100 / (1 + np.exp(170.2))),  # but not below
        (1.0, 100.0, 8 / (1 + np.exp(-1.702))),  # up clamped above
        (1.0, -100.0, -6 / (1 + np.exp(-1.702))),  # and below
    ],
)
def test_swiglu(gate, up, want):
    assert swiglu([gate, up], 7.0) == pytest.approx([want], rel=1e-14)


def test_swiglu_pairs_neighbours():
    assert swiglu([1.0, 2.0, 3.0, 4.0], 7.0).tolist() == [
        *swiglu([1.0, 2.0], 7.0),
        *swiglu([3.0, 4.0], 7.0),
    ]


def test_grouped_matmul_uses_each_rows_expert():
    rng = np.random.default_rng(0)
    weights = random_weights(rng, 3, 5, 64)
    x = rng.standard_normal((4, 64))
    y = grouped_matmul(x, weights, np.array([0, 1, 1, 4], np.int32))
    w = dequantize(weights.blocks, weights.scales)
    for row, e in enumerate([0, 2, 2, 2]):
        np.testing.assert_allclose(y[row], w[e] @ x[row] + weights.bias[e], rtol=1e-12)


def test_grouped_matmul_rounds_its_input_when_asked():
    rng = np.random.default_rng(0)
    weights = random_weights(rng, 1, 5, 32)
    offsets = np.array([0, 1], np.int32)
    x = np.full((1, 32), 1 + 2**-8)  # a tie, which rounds down to 1
    rounded = grouped_matmul(x, weights, offsets, activations="bfloat16")
    assert np.array_equal(rounded, grouped_matmul(np.ones((1, 32)), weights, offsets))


def test_combine_restores_token_order():
    y = np.array([[10.0], [20.0], [30.0], [40.0]])
    places = np.array([[2, 0], [1, 3]], np.int32)
    got = combine(y, places, [[0.5, 1.0], [2.0, 3.0]])
    assert got.tolist() == [[0.5 * 30 + 10], [2 * 20 + 3 * 40]]


@pytest.mark.parametrize("tokens", [0, 1, 9])
def test_experts_equal_a_loop_over_tokens(tokens):
    rng = np.random.default_rng(0)
    gate_up, down = random_weights(rng, 6, 128, 32), random_weights(rng, 6, 32, 64)
    x = rng.standard_normal((tokens, 32))
    ids, weights = route(rng.standard_normal((tokens, 6)), 4)
    w1 = dequantize(gate_up.blocks, gate_up.scales)
    w2 = dequantize(down.blocks, down.scales)
    want = np.zeros((tokens, 32))
    for t in range(tokens):
        for e, weight in zip(ids[t], weights[t], strict=True):
            h = swiglu(w1[e] @ x[t] + gate_up.bias[e], 7.0)
            want[t] += weight * (w2[e] @ h + down.bias[e])
    np.testing.assert_allclose(experts(x, ids, weights, gate_up, down, 7.0), want, atol=1e-13)


def test_no_rows_give_no_rows():
    rng = np.random.default_rng(0)
    order, _, offsets = group(np.empty((0, 4), int), 2)
    weights = random_weights(rng, 2, 6, 32)
    assert grouped_matmul_swiglu(np.empty((0, 32)), weights, offsets, order, 7.0).shape == (0, 3)
