"""The reference model against transformers: live where torch is installed, and by golden logits."""

from unittest.mock import patch

import numpy as np
import pytest

from tests import tolerances
from tests.golden import CHECKPOINT, load_prompts
from tests.measure import logit_error
from tests.reference import moe
from tests.reference.model import forward, forward_stages, read_checkpoint

PROMPTS = {prompt.name: prompt for prompt in load_prompts()}


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def window_logits(checkpoint):
    """What the unchanged model makes of the 200-token prompt."""
    return run_reference(checkpoint, PROMPTS["window"])


def run_reference(checkpoint, prompt, *activations):
    """Logits at the positions that the prompt keeps."""
    config, weights = checkpoint
    return forward(config, weights, prompt.token_ids, *activations)[prompt.positions]


def assert_within(error, bound):
    assert error.maximum <= bound.maximum, error
    assert error.mean <= bound.mean, error
    assert error.top1 >= bound.top1, error


@pytest.mark.parametrize("name", PROMPTS)
def test_reference_agrees_with_golden_logits(checkpoint, name):
    prompt = PROMPTS[name]
    got = run_reference(checkpoint, prompt)
    assert_within(logit_error(got, prompt.logits), tolerances.REFERENCE_LOGITS)


@pytest.mark.parametrize("name", ["single", "short", "window"])
def test_golden_logits_are_what_transformers_computes(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.golden.make import load_model, run

    prompt = PROMPTS[name]
    got = run(load_model(torch.float32), prompt.token_ids)[prompt.positions]
    assert_within(logit_error(got, prompt.logits), tolerances.REFERENCE_LOGITS)


@pytest.mark.parametrize("name", PROMPTS)
def test_rounded_activations_beat_transformers_bfloat16(checkpoint, name):
    prompt = PROMPTS[name]
    got = run_reference(checkpoint, prompt, "bfloat16", "bfloat16")
    assert_within(logit_error(got, prompt.logits), prompt.bfloat16_error)


def test_stages_add_up(checkpoint):
    config, weights = checkpoint
    stages = forward_stages(config, weights, PROMPTS["short"].token_ids)
    stream = stages.embedding
    for layer in stages.layers:
        stream = stream + layer.attention + layer.experts
        np.testing.assert_allclose(layer.output, stream, atol=1e-12)


def test_golden_logits_are_not_degenerate():
    logits = PROMPTS["yarn"].logits
    assert len(set(logits.argmax(axis=-1))) > len(logits) / 2  # the top token varies
    assert logits.std(axis=0).min() > 0.5  # every token's logit varies with the context


def without(suffix):
    """The change that makes every tensor of a name zero."""

    def change(config, weights):
        return config, {n: w * 0 if n.endswith(suffix) else w for n, w in weights.items()}

    return change


def with_config(**fields):
    """The change that replaces fields of the config."""
    return lambda config, weights: ({**config, **fields}, weights)


def with_rope(**fields):
    """The change that replaces rope parameters."""

    def change(config, weights):
        return {**config, "rope_parameters": {**config["rope_parameters"], **fields}}, weights

    return change


def with_experts(suffix, rearrange):
    """The change that rearranges one kind of expert tensor."""

    def change(config, weights):
        return config, {n: rearrange(w) if n.endswith(suffix) else w for n, w in weights.items()}

    return change


MISTAKES = {
    "no sinks": lambda config, weights: (
        config,
        {n: w - 1e9 if n.endswith("sinks") else w for n, w in weights.items()},
    ),
    "window one short": with_config(sliding_window=127),
    "window one long": with_config(sliding_window=129),
    "layer types swapped": with_config(layer_types=["full_attention", "sliding_attention"] * 2),
    "no clamp": with_config(swiglu_limit=1e9),
    "fourth expert dropped": with_config(num_experts_per_tok=3),
    "no yarn": with_rope(factor=1.0, attention_factor=1.3465735902799727),
    "no attention factor": with_rope(attention_factor=1.0),
    "yarn truncated": with_rope(truncate=True),
    "other theta": with_rope(rope_theta=10000.0),
    "nibbles swapped": with_experts("_blocks", lambda w: w << 4 | w >> 4),
    "scales one group off": with_experts("_scales", lambda w: np.roll(w, 1, axis=-1)),
    "scales one row off": with_experts("_scales", lambda w: np.roll(w, 1, axis=-2)),
    "experts one off": with_experts("gate_up_proj_bias", lambda w: np.roll(w, 1, axis=0)),
    "gate and up in halves": with_experts(
        "gate_up_proj_bias", lambda w: np.concatenate([w[:, 0::2], w[:, 1::2]], axis=-1)
    ),
    **{
        f"no {name}": without(name)
        for name in (
            "q_proj.bias",
            "k_proj.bias",
            "v_proj.bias",
            "o_proj.bias",
            "router.bias",
            "gate_up_proj_bias",
            "down_proj_bias",
        )
    },
}
"""Ways to get the model slightly wrong."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_golden_logits_show_every_mistake(checkpoint, window_logits, mistake):
    wrong = MISTAKES[mistake](*checkpoint)
    error = logit_error(run_reference(wrong, PROMPTS["window"]), window_logits)
    assert error.maximum > 10 * tolerances.LOGITS_FLOAT32.maximum, error


def test_golden_logits_show_another_alpha(checkpoint, window_logits):
    with patch.object(moe, "SWIGLU_ALPHA", 1.0):  # plain SiLU
        error = logit_error(run_reference(checkpoint, PROMPTS["window"]), window_logits)
    assert error.maximum > 10 * tolerances.LOGITS_FLOAT32.maximum, error
