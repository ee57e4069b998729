"""Logits of the whole model, at every position, against Hugging Face transformers.

The golden checkpoint has four layers, two of them sliding, and its longest prompt has 4200 tokens, past the 4096
from which YaRN stretches. Its logits were made by transformers in float32 (`tests/golden/make.py`); where torch is
installed transformers also runs live, on a checkpoint of another seed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gpt_oss_mxfp4.options import LayerOptions
from tests import tolerances
from tests.golden import CHECKPOINT, Prompt, load_prompts
from tests.harness import Harness
from tests.measure import LogitError, logit_error

PROMPTS = load_prompts()
LENGTH = 4352
"""Room for the longest prompt, in whole pages of the KV cache."""

FLOAT32 = LayerOptions(activations="float32")
INT8 = LayerOptions(activations="int8", dense_weights="int8")


@pytest.fixture(scope="module")
def float32() -> Harness:
    """The variant for comparisons: nothing is rounded to bfloat16 but the weights."""
    return Harness(CHECKPOINT, max_length=LENGTH, layers=FLOAT32)


@pytest.fixture(scope="module")
def bfloat16() -> Harness:
    """What users run."""
    return Harness(CHECKPOINT, max_length=LENGTH)


@pytest.fixture(scope="module")
def int8() -> Harness:
    """The fastest: 8 bits on both sides of every matmul but the router's."""
    return Harness(CHECKPOINT, max_length=LENGTH, layers=INT8)


def with_slack(error: LogitError) -> LogitError:
    slack = tolerances.ROUNDED_SLACK
    top1 = error.top1 - tolerances.ROUNDED_TIES
    return LogitError(slack * error.maximum, slack * error.mean, top1)


def assert_within(error: LogitError, bound: LogitError) -> None:
    # Not `error > bound`: that is false for NaN.
    assert error.maximum <= bound.maximum, error
    assert error.mean <= bound.mean, error
    assert error.top1 >= bound.top1, error


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_float32_activations_match_transformers(float32: Harness, prompt: Prompt) -> None:
    [logits] = float32.prefill([prompt.token_ids.tolist()])
    assert logits.shape == (len(prompt.token_ids), prompt.logits.shape[1])
    error = logit_error(logits[prompt.positions], prompt.logits)
    print(f"{prompt.name}: {error}")
    assert_within(error, tolerances.LOGITS_FLOAT32)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_default_is_no_worse_than_transformers_bfloat16(bfloat16: Harness, prompt: Prompt) -> None:
    """Nor than rounding inputs of matmuls costs by itself, which is a much closer bound."""
    [logits] = bfloat16.prefill([prompt.token_ids.tolist()])
    error = logit_error(logits[prompt.positions], prompt.logits)
    print(f"{prompt.name}: {error}, transformers' own bfloat16: {prompt.bfloat16_error}")
    assert_within(error, prompt.bfloat16_error)
    assert_within(error, with_slack(prompt.rounded_errors["bfloat16"]))


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_eight_bits_cost_what_rounding_to_them_costs(int8: Harness, prompt: Prompt) -> None:
    [logits] = int8.prefill([prompt.token_ids.tolist()])
    error = logit_error(logits[prompt.positions], prompt.logits)
    print(f"{prompt.name}: {error}")
    assert_within(error, with_slack(prompt.rounded_errors["int8, dense int8"]))


def test_token_by_token_gives_the_logits_of_one_prefill(float32: Harness) -> None:
    """Past the window of 128, so that the sliding layers' cache has let go of its first page."""
    prompt = next(p for p in PROMPTS if p.name == "window").token_ids.tolist()
    [whole] = float32.prefill([prompt])
    for first in (1, 131):
        [stepped] = float32.decode([prompt], first=first)
        assert_within(logit_error(stepped, whole), tolerances.SAME_MODEL)


def test_a_batch_gives_each_prompt_what_it_gets_alone(float32: Harness, bfloat16: Harness) -> None:
    long = next(p for p in PROMPTS if p.name == "window").token_ids.tolist()
    prompts = [long, long[60:97]]
    for harness, bound in (
        (float32, tolerances.SAME_MODEL),
        (bfloat16, tolerances.SAME_MODEL_ROUNDED),
    ):
        alone = [harness.prefill([prompt])[0] for prompt in prompts]
        for together in (harness.prefill(prompts), harness.decode(prompts, first=30)):
            for got, want in zip(together, alone, strict=True):
                assert_within(logit_error(got, want), bound)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed: transformers' golden logits stand in for a live run")
    from tests.make_checkpoint import make_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=3)
    return folder


def test_another_checkpoint_matches_live_transformers(other_checkpoint: Path) -> None:
    """At all of 4200 positions of a prompt that nobody chose.

    The likeliest token must be the same wherever transformers' own two likeliest are further apart than the bound on
    errors; how many are not is printed.
    """
    import torch

    from tests.golden.make import load_model, run

    prompt = np.random.default_rng(3).integers(0, 370, 4200)
    want = run(load_model(torch.float32, other_checkpoint), prompt)
    [got] = Harness(other_checkpoint, max_length=LENGTH, layers=FLOAT32).prefill([prompt.tolist()])
    error = logit_error(got, want)
    best = np.sort(want, axis=-1)
    clear = best[:, -1] - best[:, -2] > 2 * tolerances.LOGITS_FLOAT32.maximum * np.ptp(want)
    same = got.argmax(axis=-1) == want.argmax(axis=-1)
    print(
        f"{error}; {(~clear).sum()} near ties, of which {(~same & ~clear).sum()} fell differently"
    )
    assert error.maximum <= tolerances.LOGITS_FLOAT32.maximum
    assert error.mean <= tolerances.LOGITS_FLOAT32.mean
    assert clear.mean() > 0.9
    assert same[clear].all()
