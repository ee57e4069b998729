"""The training loop: reproducible to the bit, and it learns."""

from __future__ import annotations

import functools
import json
import math
import random
from dataclasses import asdict
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from demo import training as module  # noqa: E402  (needs both)
from demo.examples import encode_example  # noqa: E402
from demo.muon import Muon  # noqa: E402
from demo.tasks import Conversation, draw  # noqa: E402
from demo.training import Recipe, Step, accumulate_gradients, make_optimizers, schedule, train  # noqa: E402
from gpt_oss_mxfp4.options import DEMO_MODEL  # noqa: E402
from tests.demo.tiny import random_model, tiny_model  # noqa: E402

SHORT = Recipe(steps=3, conversations=4, warmup=1)


def test_a_run_is_the_same_to_the_bit(tokenizer: Any) -> None:
    def run(recipe: Recipe) -> tuple[list[Step], dict[str, Any]]:
        model = tiny_model(tokenizer, seed=recipe.seed)
        return list(train(model, tokenizer, recipe)), model.state_dict()

    (steps, weights), (again, same) = run(SHORT), run(SHORT)
    assert steps == again
    assert [step.number for step in steps] == [1, 2, 3]
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert steps != run(Recipe(seed=1, steps=3, conversations=4, warmup=1))[0]


def test_the_loss_falls(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw", functools.partial(draw, tasks={"add": 1.0}))
    recipe = Recipe(steps=12, conversations=4, warmup=2, lr=2e-2)
    steps = list(train(tiny_model(tokenizer), tokenizer, recipe))
    assert all(math.isfinite(step.loss) for step in steps)
    # Before the first step all tokens are alike.
    assert steps[0].loss == pytest.approx(math.log(len(tokenizer)), rel=1e-5)
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert steps[-1].accuracy > steps[0].accuracy


def test_training_draws_nothing_that_is_held_out_and_stories_of_all_lengths(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Conversation] = []
    lengths = set()

    def spy(rng: random.Random, *, story_words: int, **options: Any) -> Conversation:
        seen.append(draw(rng, story_words=story_words, **options))
        lengths.add(story_words)
        return seen[-1]

    monkeypatch.setattr(module, "draw", spy)
    monkeypatch.setattr(module, "accumulate_gradients", lambda *_: (0.0, 0.0))
    list(train(tiny_model(tokenizer), tokenizer, Recipe(steps=2, conversations=50, warmup=1)))
    assert len(seen) == 100
    assert not any(conversation.held_out for conversation in seen)
    assert lengths == set(module.STORIES)


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.1),
        (4, 0.5),
        (9, 1.0),
        (10, 1.0),
        (11, 1 - 1 / 90),
        (55, 0.5),
        (99, 1 / 90),
        (100, 0.0),
    ],
)
def test_the_learning_rate_rises_and_falls_along_lines(step: int, share: float) -> None:
    assert schedule(step, Recipe(steps=100, warmup=10)) == pytest.approx(share)


def test_both_optimizers_take_the_schedules_learning_rate(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []
    optimizers: list[Any] = []

    def make(*args: Any) -> list[Any]:
        optimizers.extend(make_optimizers(*args))
        return optimizers

    def record(*_: Any) -> tuple[float, float]:
        rates.append([group["lr"] for optimizer in optimizers for group in optimizer.param_groups])
        return 0.0, 0.0

    monkeypatch.setattr(module, "make_optimizers", make)
    monkeypatch.setattr(module, "accumulate_gradients", record)
    recipe = Recipe(steps=4, conversations=0, warmup=2, lr=0.1)
    list(train(tiny_model(tokenizer), tokenizer, recipe))
    assert rates == [[lr, lr] for lr in (0.05, 0.1, 0.1, 0.05)]


def test_every_parameter_is_in_one_optimizer(tokenizer: Any) -> None:
    model = tiny_model(tokenizer)
    muon, adamw = make_optimizers(model, Recipe(weight_decay=0.3, betas=(0.5, 0.6)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = [
        [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        for optimizer in (muon, adamw)
    ]
    assert sorted(taken[0] + taken[1]) == sorted(names.values())
    assert isinstance(muon, Muon)
    kinds = {name.removeprefix("model.layers.").partition(".")[2] for name in taken[0]}
    assert kinds == {
        *(f"self_attn.{x}_proj.weight" for x in "qkvo"),
        "mlp.experts.parametrizations.gate_up_proj.original",
        "mlp.experts.parametrizations.down_proj.original",
    }
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= set(taken[1])
    assert muon.param_groups[0]["weight_decay"] == 0.3
    assert adamw.param_groups[0]["weight_decay"] == 0.0
    assert adamw.param_groups[0]["betas"] == (0.5, 0.6)


def gradients(model: Any) -> list[Any]:
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


def test_loss_and_gradient_are_the_weighted_mean_of_all_tokens_to_learn(tokenizer: Any) -> None:
    """However the batch is cut up: against one conversation after the other in transformers' own loss."""
    rng = random.Random(0)
    examples = [
        encode_example(tokenizer, draw(rng, held_out=False, tasks={task: 1.0}))
        for task in ("add", "reverse", "calculate", "count", "chat")
    ]
    model = random_model(tokenizer)
    pad_id = tokenizer.pad_token_id
    loss, accuracy = accumulate_gradients(model, examples, pad_id, Recipe(max_tokens=10**6))
    whole = gradients(model)
    cut_loss, cut_accuracy = accumulate_gradients(model, examples, pad_id, Recipe(max_tokens=1))
    cut = gradients(model)

    learnt = [sum(target >= 0 for target in example.targets) for example in examples]
    want, right = torch.tensor(0.0), 0
    for example, tokens in zip(examples, learnt, strict=True):
        logits = model(torch.tensor([example.ids]), use_cache=False).logits[0]
        targets = torch.tensor(example.targets)
        likelihood = logits.log_softmax(-1)[range(len(targets)), targets.clamp(min=0)]
        weight = tokens**-0.5 / sum(n**0.5 for n in learnt)
        want = want - weight * likelihood[targets >= 0].sum()
        right += int((logits.argmax(-1) == targets).sum())
        assert tokens > 0
    want.backward()
    separate = gradients(model)

    assert loss == pytest.approx(want.item(), rel=1e-5)
    assert cut_loss == pytest.approx(want.item(), rel=1e-5)
    assert accuracy == cut_accuracy == right / sum(learnt)
    for one, other, expected in zip(whole, cut, separate, strict=True):
        # float32 sums over a thousand tokens, in other orders
        bound = 1e-4 * expected.abs().max().item() + 1e-7
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=bound)
        torch.testing.assert_close(other, expected, rtol=1e-3, atol=bound)


def test_a_loss_that_is_no_number_stops_the_run(tokenizer: Any) -> None:
    model = tiny_model(tokenizer)
    model.model.embed_tokens.weight.data[:] = torch.nan
    with pytest.raises(FloatingPointError, match=r"^the loss became nan: lower the learning rate$"):
        next(train(model, tokenizer, SHORT))


def test_the_shipped_model_is_of_this_recipe() -> None:
    report = json.loads((DEMO_MODEL / "accuracy.json").read_text())
    assert report["recipe"] == json.loads(json.dumps(asdict(Recipe())))
    assert report["minutes"] < 60
