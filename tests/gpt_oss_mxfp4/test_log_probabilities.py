"""Log probabilities of sampled tokens, against NumPy in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from max.driver import CPU, Buffer

from gpt_oss_mxfp4.log_probabilities import LogProbabilitiesGraph

if TYPE_CHECKING:
    from max.engine import InferenceSession

TOKENS = Buffer.from_numpy(np.arange(5, dtype=np.int64))
ROW_OFFSETS = Buffer.from_numpy(np.array([0, 2, 5], np.uint32))


def test_those_of_the_sampled_and_of_the_likeliest(
    session: InferenceSession, rng: np.random.Generator
) -> None:
    logits = rng.standard_normal((2, 300)).astype(np.float32) * 5
    sampled = np.array([7, 299], np.int64)
    compute = LogProbabilitiesGraph(session, CPU())
    first, second = compute(
        TOKENS,
        ROW_OFFSETS,
        Buffer.from_numpy(logits),
        None,
        Buffer.from_numpy(sampled),
        batch_top_n=[3, 0],
        batch_echo=[False, False],
    )
    exact = logits[0].astype(np.float64)
    exact -= np.log(np.exp(exact).sum())
    likeliest = np.argsort(-exact)[:3]
    assert second is None
    assert first is not None
    assert first.sampled_token_ids == [7]
    np.testing.assert_allclose(first.token_log_probabilities, [exact[7]], atol=1e-4)
    [top] = first.top_log_probabilities
    assert {7, *likeliest.tolist()} >= set(top) >= set(likeliest.tolist())
    np.testing.assert_allclose([top[i] for i in likeliest], exact[likeliest], atol=1e-4)


def test_an_echo_without_its_logits_is_what_max_takes_for_unsupported(
    session: InferenceSession,
) -> None:
    compute = LogProbabilitiesGraph(session, CPU())
    logits = Buffer.from_numpy(np.zeros((2, 300), np.float32))
    sampled = Buffer.from_numpy(np.zeros(2, np.int64))
    with pytest.raises(NotImplementedError):
        compute(TOKENS, ROW_OFFSETS, logits, None, sampled, [1, 1], [True, False])
