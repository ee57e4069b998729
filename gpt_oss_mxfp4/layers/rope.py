"""YaRN rotary positions: the table of cosines and sines that attention looks up."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gpt_oss_mxfp4.config import GptOssConfig, YarnRope


def inverse_frequencies(rope: YarnRope, head_dim: int) -> npt.NDArray[np.float32]:
    """Angle per position of each rotated pair: YaRN's blend of the original and the stretched frequencies.

    ``f_i = theta^(-2i/d)``; pairs that turn more than ``beta_fast`` times within the original context keep f_i,
    pairs that turn less than ``beta_slow`` times get f_i / factor, those between are blended linearly.

    Args:
        rope: the config's YaRN parameters; with ``truncate`` the blend's ends are rounded outwards to whole pairs.
        head_dim: d, elements of a head; pairs are (i, i + d/2).

    Returns:
        [d/2] float32. Rounded step by step in float32 as transformers and the training code do: in a long context
        a last-bit difference here grows by the position.

    Source: Peng et al., YaRN (arXiv 2309.00071), section 3.2; openai/gpt-oss ``torch/model.py`` RotaryEmbedding.
    """

    def pair_that_turns(rotations: float) -> float:
        wavelengths = rope.original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(wavelengths) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # keeps the blend's slope finite

    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    wavelengths = np.float32(rope.theta) ** exponents
    original = np.float32(1) / wavelengths
    stretched = np.float32(1) / (np.float32(rope.factor) * wavelengths)
    pairs = np.arange(head_dim // 2, dtype=np.float32)
    keep = np.float32(1) - np.clip((pairs - np.float32(low)) / np.float32(high - low), 0, 1)
    return stretched * (np.float32(1) - keep) + original * keep


def rope_table(config: GptOssConfig) -> npt.NDArray[np.float32]:
    """cos and sin of every position: ``table[p, 2i] = m * cos(p * f_i)``, ``table[p, 2i + 1] = m * sin(p * f_i)``.

    Args:
        config: gives the frequencies, the number of positions and m, YaRN's attention factor.

    Returns:
        [max_position_embeddings, head_dim] float32, 34 MB for gpt-oss. A weight of the graph, not part of it: the
        compiled graph is then the same for every context length.
    """
    positions = np.arange(config.max_position_embeddings, dtype=np.float32)
    angles = positions[:, None] * inverse_frequencies(config.rope, config.head_dim)
    table = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * np.float32(
        config.rope.attention_factor
    )
    return table.reshape(len(positions), config.head_dim)
