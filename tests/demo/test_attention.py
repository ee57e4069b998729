"""Attention with sinks through the fused kernel: outputs and gradients of transformers' own eager attention."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")

from demo.attention import sink_attention  # noqa: E402  (needs both)

RTOL, ATOL = 1e-4, 1e-5
"""Of float32 sums of at most 50 products of size 1 in another order: 50 x 2^-24 = 3e-6 of their size, through a
softmax and back."""

SCALING = 16**-0.5


@dataclass(frozen=True)
class Case:
    tokens: int
    window: int | None
    batch: int = 2
    heads: int = 4
    groups: int = 2
    sinks: float = 0.0


CASES = [
    Case(tokens=1, window=None),
    Case(tokens=1, window=1),
    Case(tokens=7, window=None),
    Case(tokens=50, window=None),
    Case(tokens=50, window=None, batch=1, heads=3, groups=1),
    Case(tokens=50, window=None, heads=4, groups=4),
    Case(tokens=50, window=16),
    Case(tokens=50, window=1),
    Case(tokens=50, window=49),
    Case(tokens=50, window=50),
    Case(tokens=50, window=51),
    Case(tokens=20, window=8, sinks=30.0),  # they take nearly all
    Case(tokens=20, window=8, sinks=-30.0),  # they take nothing
]


def sees(query: int, key: int, window: int | None) -> bool:
    return key <= query and (window is None or query - key < window)


def run(attention: Any, case: Case, mask: Any) -> list[Any]:
    """The output, and the gradients of query, key, value and sinks."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    query = random(case.batch, case.heads, case.tokens, 16)
    key = random(case.batch, case.heads // case.groups, case.tokens, 16)
    value = random(case.batch, case.heads // case.groups, case.tokens, 16)
    sinks = random(case.heads) + case.sinks
    inputs = [t.requires_grad_() for t in (query, key, value, sinks)]
    module = SimpleNamespace(sinks=sinks, num_key_value_groups=case.groups, training=True)
    output, _ = attention(
        module, query, key, value, mask, scaling=SCALING, sliding_window=case.window
    )
    gradient = random(case.batch, case.tokens, case.heads, 16)
    return [output, *torch.autograd.grad(output, inputs, gradient)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_are_those_of_eager_attention(case: Case) -> None:
    seen = [[sees(q, k, case.window) for k in range(case.tokens)] for q in range(case.tokens)]
    mask = torch.zeros(case.tokens, case.tokens).masked_fill(~torch.tensor(seen), -torch.inf)
    got = run(sink_attention, case, None)
    want = run(modeling.eager_attention_forward, case, mask)
    for name, one, other in zip(
        ("output", "query", "key", "value", "sinks"), got, want, strict=True
    ):
        assert one.shape == other.shape
        torch.testing.assert_close(
            one, other, rtol=RTOL, atol=ATOL, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_sinks_take_their_share() -> None:
    """One key of the sink's own logit gives half of its value."""
    module = SimpleNamespace(sinks=torch.tensor([0.0]), num_key_value_groups=1)
    zeros, value = torch.zeros(1, 1, 1, 16), torch.full((1, 1, 1, 16), 3.0)
    output, weights = sink_attention(module, zeros, zeros, value, None, scaling=SCALING)
    torch.testing.assert_close(output, torch.full((1, 1, 1, 16), 1.5))
    assert weights is None
