"""Greedy decoding in transformers, against a loop that is as simple as can be, and what is told of differences."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from demo import torch_decoder as module  # noqa: E402  (needs both)
from demo.architecture import remove_rounding  # noqa: E402
from demo.questions import Judged, Question  # noqa: E402
from demo.torch_decoder import Difference, compare, decode_in_torch  # noqa: E402
from tests.demo.tiny import random_model  # noqa: E402

MAX_TOKENS = 6
PROMPTS = [
    [random.Random(i).randrange(500) for _ in range(length)]
    for i, length in enumerate((30, 3, 12, 1, 30, 7))
]


@pytest.fixture
def model(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "MAX_ANSWER_TOKENS", MAX_TOKENS)
    model = random_model(tokenizer)
    remove_rounding(model, keep_rounded=True)
    model.set_attn_implementation("eager")
    return model.eval()


def likeliest(model: Any, ids: list[int]) -> int:
    with torch.inference_mode():
        return int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())


def answer(model: Any, prompt: list[int], ends: list[int]) -> list[int]:
    """No batch, no padding, no cache."""
    said: list[int] = []
    while len(said) < MAX_TOKENS and not (said and said[-1] in ends):
        said.append(likeliest(model, prompt + said))
    return said


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_answers_come_in_order_and_do_not_depend_on_the_batch(model: Any, batch: int) -> None:
    want = [answer(model, prompt, model.config.eos_token_id) for prompt in PROMPTS]
    assert list(decode_in_torch(model, batch)(PROMPTS)) == want
    assert len({tuple(one) for one in want}) == len(want)


def test_no_prompts_are_no_answers(model: Any) -> None:
    assert list(decode_in_torch(model)([])) == []


def end_at(model: Any, ends: list[int], *, as_published: bool) -> None:
    """Makes tokens those that end an answer, as a model in training or a checkpoint has them."""
    model.config.eos_token_id = ends[0] if as_published else ends
    model.generation_config.eos_token_id = ends


@pytest.mark.parametrize("as_published", [False, True])
def test_an_answer_ends_with_any_token_that_ends_one(model: Any, as_published: bool) -> None:
    free = [answer(model, prompt, []) for prompt in PROMPTS]
    # Each ends another's answer.
    place = next(i for i, token in enumerate(free[0]) if token not in free[1])
    ends = [free[0][place], free[1][1]]
    end_at(model, ends, as_published=as_published)
    want = [answer(model, prompt, ends) for prompt in PROMPTS]
    assert len(want[0]) <= place + 1
    assert len(want[1]) <= 2
    assert list(decode_in_torch(model)(PROMPTS)) == want


def judged(prompt: list[int], said: list[int], text: str = "Hello") -> Judged:
    question = Question("chat", [{"role": "user", "content": text}], {}, [], "low")
    return Judged(question, prompt, said, right=False)


def test_equal_answers_are_no_difference(model: Any, tokenizer: Any) -> None:
    both = [judged(prompt, [1, 2, 3]) for prompt in PROMPTS]
    other = [dataclasses.replace(one, right=True) for one in both]
    assert compare(model, tokenizer, both, other) == []


def test_a_difference_is_told_at_its_first_token(model: Any, tokenizer: Any) -> None:
    prompt, said = PROMPTS[0], answer(model, PROMPTS[0], [])
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + said[:2]]), use_cache=False).logits[0, -1]
    ranked = logits.argsort(descending=True).tolist()
    assert ranked[0] == said[2]
    other = [*said[:2], ranked[4], 0]
    same = judged(PROMPTS[1], [7])
    found = compare(
        model,
        tokenizer,
        [same, judged(prompt, said, "What?")],
        [same, judged(prompt, other, "What?")],
    )
    best, second = sorted(logits.tolist())[:-3:-1]
    (difference,) = found
    assert difference.margin == pytest.approx(best - second, abs=1e-6)
    assert difference == Difference(
        task="chat",
        asked="What?",
        reference=tokenizer.decode(said),
        other=tokenizer.decode(other),
        token=2,
        margin=difference.margin,
        rank=5,
    )


def test_an_answer_that_goes_on_differs_where_the_other_ends(model: Any, tokenizer: Any) -> None:
    said = answer(model, PROMPTS[0], [])
    (found,) = compare(model, tokenizer, [judged(PROMPTS[0], said[:2])], [judged(PROMPTS[0], said)])
    assert (found.token, found.rank) == (2, 1)
