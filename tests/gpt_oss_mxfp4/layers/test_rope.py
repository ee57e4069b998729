"""The table of cosines and sines, against the float64 reference and transformers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.layers.rope import inverse_frequencies, rope_table
from tests.golden import CHECKPOINT
from tests.reference.attention import yarn_frequencies

CONFIG = GptOssConfig.from_file(CHECKPOINT / "config.json")


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("factor", [1.0, 4.0, 32.0])
def test_frequencies_are_yarns(truncate: bool, factor: float) -> None:
    rope = dataclasses.replace(CONFIG.rope, truncate=truncate, factor=factor)
    wanted, _ = yarn_frequencies(
        {
            "rope_theta": rope.theta,
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_max_position_embeddings,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "truncate": rope.truncate,
        },
        CONFIG.head_dim,
    )
    got = inverse_frequencies(rope, CONFIG.head_dim)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_frequencies_are_those_of_transformers() -> None:
    pytest.importorskip("torch")
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    wanted, factor = ROPE_INIT_FUNCTIONS["yarn"](AutoConfig.from_pretrained(CHECKPOINT), None)
    np.testing.assert_allclose(
        inverse_frequencies(CONFIG.rope, CONFIG.head_dim), wanted.numpy(), rtol=2e-7
    )
    assert CONFIG.rope.attention_factor == pytest.approx(factor)


def test_table_holds_cos_and_sin_by_turns_times_the_attention_factor() -> None:
    table = rope_table(CONFIG)
    assert table.shape == (CONFIG.max_position_embeddings, CONFIG.head_dim)
    assert table.dtype == np.float32
    angles = np.float64(1000) * inverse_frequencies(CONFIG.rope, CONFIG.head_dim)
    factor = CONFIG.rope.attention_factor
    np.testing.assert_allclose(table[1000, 0::2], factor * np.cos(angles), atol=1e-4)
    np.testing.assert_allclose(table[1000, 1::2], factor * np.sin(angles), atol=1e-4)
    np.testing.assert_array_equal(table[0, 1::2], 0)
