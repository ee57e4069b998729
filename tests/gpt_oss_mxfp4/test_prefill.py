"""Prompts in pieces: what is computed is what one piece gives, and no step has more tokens than are allowed."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.footprint import PREFILL_TOKENS
from gpt_oss_mxfp4.measurement import random_prompts
from gpt_oss_mxfp4.options import EngineOptions, SamplingOptions
from gpt_oss_mxfp4.prompt import Prompt, load_tokenizer
from tests.golden import CHECKPOINT

pytestmark = pytest.mark.slow

LONGEST = 300
NEW_TOKENS = 20


class Steps:
    """Counts the tokens of a pipeline's steps."""

    def __init__(self, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[int] = []
        execute = pipeline.execute

        def counted(inputs: Any) -> Any:
            self.tokens.append(sum(c.tokens.active_length for c in inputs.flat_batch))
            return execute(inputs)

        monkeypatch.setattr(pipeline, "execute", counted)

    def take(self) -> list[int]:
        """Those of each step since the last call."""
        taken, self.tokens = self.tokens, []
        return taken


def loaded() -> Any:
    options = EngineOptions(activations="float32")
    return engine.load(open_checkpoint(CHECKPOINT), LONGEST, NEW_TOKENS, options, 3, reuse=True)


@pytest.fixture(scope="module")
def whole() -> Any:
    """A pipeline that takes these prompts at once."""
    return loaded()


@pytest.fixture(scope="module")
def cut() -> Any:
    """One that takes 45 tokens at once, of which neither the window nor a page is a multiple."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PREFILL_TOKENS, "cpu", 45)
        return loaded()


@pytest.fixture
def steps(cut: Any, monkeypatch: pytest.MonkeyPatch) -> Steps:
    cut.kv_manager.reset_prefix_cache()
    return Steps(cut, monkeypatch)


def batch(pipeline: Any, prompts: list[list[int]]) -> list[list[int]]:
    return list(engine.stream_batch(pipeline, prompts, NEW_TOKENS))


def test_pieces_give_what_a_prompt_gives_at_once(whole: Any, cut: Any, steps: Steps) -> None:
    """Past the window and pages, of one sequence and of several that are not equally long."""
    [long, other, third] = random_prompts(3, 3 * LONGEST, 384)
    assert batch(cut, [long]) == batch(whole, [long])
    assert steps.take() == 6 * [45] + [30] + (NEW_TOKENS - 1) * [1]
    cut.kv_manager.reset_prefix_cache()
    prompts = [other[:290], third[:7], long[150:]]
    tokens = batch(cut, prompts)
    assert tokens == batch(whole, prompts)
    assert [len(of_all) for of_all in tokens] == NEW_TOKENS * [3]
    taken = steps.take()
    assert taken[:2] == [15 + 7 + 15, 15 + 1 + 15]
    assert max(taken) <= 45


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_no_more_is_set_aside_for_a_batch_than_a_step_takes(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """By MAX's words for it, as the plan for a GPU's memory has them (``memory.py``)."""
    asked: list[Any] = []
    monkeypatch.setattr(engine, "_make_pipeline", lambda *given, **_: asked.append(given[3]))
    engine.load(open_checkpoint(CHECKPOINT), 4096, NEW_TOKENS, EngineOptions(), batch)
    [runtime] = asked
    assert runtime.max_batch_input_tokens >= 4096 * batch
    step = runtime.max_request_input_tokens * runtime.max_batch_size
    assert PREFILL_TOKENS["cpu"] - batch < step <= PREFILL_TOKENS["cpu"]


def test_prompts_that_fit_a_step_together_are_not_cut(whole: Any, monkeypatch: Any) -> None:
    whole.kv_manager.reset_prefix_cache()
    steps = Steps(whole, monkeypatch)
    batch(whole, random_prompts(3, 3 * LONGEST, 384))
    assert steps.take() == [3 * LONGEST] + (NEW_TOKENS - 1) * [3]


def test_what_is_cached_of_a_prompt_is_not_prefilled_again(
    whole: Any, cut: Any, steps: Steps
) -> None:
    [prompt] = random_prompts(1, LONGEST, 384)
    batch(cut, [prompt[:200]])
    assert steps.take()[:5] == [45, 45, 45, 45, 20]
    assert batch(cut, [prompt]) == batch(whole, [prompt])
    rest = LONGEST - 200 // cut.kv_manager.params.page_size * cut.kv_manager.params.page_size
    assert steps.take()[: rest // 45 + 1] == rest // 45 * [45] + [rest % 45]


def test_who_reads_the_steps_may_stop_between_two_pieces(cut: Any, steps: Steps) -> None:
    """What the prompt has of the cache is free again: it has room for three such prompts."""
    checkpoint = open_checkpoint(CHECKPOINT)
    options = SamplingOptions(max_new_tokens=NEW_TOKENS)
    for _ in range(5):
        [ids] = random_prompts(1, LONGEST, 384)
        prompt = Prompt(ids=ids, tokenizer=load_tokenizer(checkpoint), harmony=False)
        stream = engine.stream(cut, prompt, options)
        assert next(stream) == []
        stream.close()
    assert sum(map(len, engine.stream(cut, prompt, options))) == NEW_TOKENS
