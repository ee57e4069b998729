"""Experts on sorted rows: outputs and gradients of transformers' own eager experts."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
modeling = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")

from demo.experts import sorted_experts  # noqa: E402  (needs all of the above)

RTOL, ATOL = 1e-4, 1e-4
"""Of float32 sums of 64 products and more in another order, of elements up to 100, as the clamp at 7 allows."""

EXPERTS, TOP_K, HIDDEN, INTERMEDIATE = 5, 2, 64, 32

CHOICES = {
    "spread": [[0, 1], [4, 2], [3, 0], [1, 3], [2, 4], [0, 4], [3, 1]],
    "an expert without tokens": [[0, 1], [1, 0], [3, 4], [4, 0]],
    "all on the same": [[3, 1]] * 9,
    "the last alone": [[4, 3]],
}


def make_experts() -> Any:
    config = transformers.GptOssConfig(
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        num_hidden_layers=1,
    )
    config._experts_implementation = "eager"
    experts = modeling.GptOssExperts(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return experts


def run(forward: Any, experts: Any, choices: list[list[int]]) -> list[Any]:
    """The output, and the gradients of hidden states, weights of the choice, and the experts' own."""
    generator = torch.Generator().manual_seed(1)
    hidden_states = torch.randn(len(choices), HIDDEN, generator=generator).requires_grad_()
    weights = torch.rand(len(choices), TOP_K, generator=generator).requires_grad_()
    index = torch.tensor(choices, dtype=torch.int64).reshape(-1, TOP_K)
    output = forward(hidden_states, index, weights)
    gradient = torch.randn(len(choices), HIDDEN, generator=generator)
    inputs = [hidden_states, weights, *experts.parameters()]
    gradients = torch.autograd.grad(output, inputs, gradient, allow_unused=True)
    # An expert that was not used has no gradient in one, zeros in the other.
    return [
        output,
        *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)),
    ]


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_outputs_and_gradients_are_those_of_eager_experts(choices: list[list[int]]) -> None:
    experts = make_experts()
    got = run(lambda *args: sorted_experts(experts, *args), experts, choices)
    want = run(experts, experts, choices)
    names = [
        "output",
        "hidden_states",
        "weights",
        *(name for name, _ in experts.named_parameters()),
    ]
    for name, one, other in zip(names, got, want, strict=True):
        torch.testing.assert_close(
            one, other, rtol=RTOL, atol=ATOL, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert other.abs().max() > 0


def test_no_tokens_are_no_rows() -> None:
    output, *gradients = run(
        lambda *args: sorted_experts(make_experts(), *args), make_experts(), []
    )
    assert output.shape == (0, HIDDEN)
    assert not any(gradient.any() for gradient in gradients)


def test_the_clamp_is_reached() -> None:
    experts = make_experts()
    x = torch.randn(9, HIDDEN, generator=torch.Generator().manual_seed(1))
    gate_up = x @ experts.gate_up_proj[3] + experts.gate_up_proj_bias[3]
    assert gate_up.abs().max() > 7
