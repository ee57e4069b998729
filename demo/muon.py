"""Muon: momentum whose direction is orthogonalised, for weight matrices.

torch.optim.Muon takes single matrices only; the experts of a layer are one stack of them.
Source: K. Jordan et al., Muon, https://kellerjordan.github.io/posts/muon/
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that pushes singular values towards 1 quickest, from the source."""

ITERATIONS = 5


def orthogonalize(x: Tensor) -> Tensor:
    """Moves all singular values of each matrix close to 1: [..., M, N], by Newton-Schulz iterations."""
    wide = x.mT if x.shape[-2] > x.shape[-1] else x
    a, b, c = COEFFICIENTS
    y = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.mT if x.shape[-2] > x.shape[-1] else y


class Muon(torch.optim.Optimizer):
    """``w <- (1 - lr * weight_decay) w - lr * 0.2 sqrt(max(M, N)) * orthogonalize(momentum)``.

    The factor gives updates the size that AdamW's have, so that both take the same learning rate.

    Args:
        params: weights of rank 2 or more, [..., M, N].
        lr: learning rate.
        momentum: of the gradient, Nesterov's.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Takes one step from the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                direction = orthogonalize(weight.grad.lerp(buffer, group["momentum"]))
                size = 0.2 * max(weight.shape[-2:]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * size)
