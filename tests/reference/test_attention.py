"""The reference's attention on examples small enough to do by hand."""

import math

import numpy as np
import pytest

from tests.reference.attention import attention, rotate, yarn_frequencies

GPT_OSS_ROPE = {
    "rope_theta": 150000.0,
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}


def test_yarn_of_gpt_oss():
    frequencies, attention_factor = yarn_frequencies(GPT_OSS_ROPE, 64)
    plain = 150000.0 ** (-np.arange(32) / 32)
    turns = 4096 * plain / (2 * math.pi)
    assert np.array_equal(frequencies[turns > 32], plain[turns > 32])
    assert np.array_equal(frequencies[turns < 1], plain[turns < 1] / 32)
    between = (turns < 32) & (turns > 1)
    assert between.sum() == 9
    assert (frequencies[between] < plain[between]).all()
    assert (frequencies[between] > plain[between] / 32).all()
    assert attention_factor == pytest.approx(1.3465735902799727)  # 0.1 ln 32 + 1


def test_yarn_attention_factor_may_be_given():
    assert yarn_frequencies({**GPT_OSS_ROPE, "attention_factor": 1.0}, 64)[1] == 1.0


def test_yarn_truncate_widens_the_blend_to_whole_pairs():
    exact, _ = yarn_frequencies(GPT_OSS_ROPE, 64)
    widened, _ = yarn_frequencies({**GPT_OSS_ROPE, "truncate": True}, 64)
    assert np.flatnonzero(exact != widened).tolist() == list(range(9, 18))


def test_rotate_pairs_the_two_halves():
    x = np.array([[[1.0, 0.0, 0.0, 0.0]]])
    got = rotate(x, [2], np.array([0.5, 0.1]), 3.0)
    np.testing.assert_allclose(got, [[[3 * math.cos(1.0), 0, 3 * math.sin(1.0), 0]]], atol=1e-15)


def test_rotation_leaves_only_the_distance():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 64))
    frequencies, factor = yarn_frequencies(GPT_OSS_ROPE, 64)

    def score(q_position, k_position):
        rotated_q = rotate(q, [q_position], frequencies, factor)
        return np.sum(rotated_q * rotate(k, [k_position], frequencies, factor))

    assert score(5000, 4000) == pytest.approx(score(1000, 0), rel=1e-9)


def test_sink_takes_its_share_and_gives_nothing():
    q, k, v = np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), np.ones((1, 1, 2))
    assert attention(q, k, v, [0.0]).tolist() == [[[0.5, 0.5]]]
    assert attention(q, k, v, [math.log(3)])[0, 0, 0] == pytest.approx(0.25)


def test_window_counts_the_query_itself():
    tokens = 6
    q = k = np.zeros((tokens, 1, 1))
    v = np.arange(tokens, dtype=float).reshape(tokens, 1, 1)
    no_sink = [-np.inf]
    assert attention(q, k, v, no_sink, window=1)[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert attention(q, k, v, no_sink, window=2)[:, 0, 0].tolist() == [0, 0.5, 1.5, 2.5, 3.5, 4.5]
    np.testing.assert_allclose(attention(q, k, v, no_sink)[:, 0, 0], np.arange(tokens) / 2)


def test_neighbouring_query_heads_share_a_kv_head():
    q, k = np.zeros((1, 4, 1)), np.zeros((1, 2, 1))
    v = np.array([[[1.0], [2.0]]])
    assert attention(q, k, v, [-np.inf] * 4)[0, :, 0].tolist() == [1, 1, 2, 2]


def test_scores_are_scaled_and_sinks_are_not():
    q = k = np.full((1, 1, 4), 2.0)  # score 16 / sqrt(4) = 8
    got = attention(q, k, np.ones((1, 1, 4)), [8.0])
    np.testing.assert_allclose(got, 0.5)
