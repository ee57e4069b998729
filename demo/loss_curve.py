"""The loss of a training run as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from demo.training import Step

INTERVAL = 20
"""Steps that one point of the curve is the mean of."""


def means(steps: Sequence[Step]) -> list[Step]:
    """Gives the mean of every `INTERVAL` steps, under the number of the last of them."""
    groups = [steps[i : i + INTERVAL] for i in range(0, len(steps), INTERVAL)]
    return [
        Step(
            group[-1].number,
            sum(step.loss for step in group) / len(group),
            sum(step.accuracy for step in group) / len(group),
        )
        for group in groups
    ]


def draw_loss_curve(steps: Sequence[Step], file: Path) -> None:
    """Draws loss and share of tokens missed over steps.

    Args:
        steps: of a run, or means of them, in order.
        file: PNG to write.
    """
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    numbers = [step.number for step in steps]
    for axes, values, title in (
        (left, [step.loss for step in steps], "cross entropy of a token, nats"),
        (right, [1 - step.accuracy for step in steps], "share of tokens missed"),
    ):
        axes.plot(numbers, values)
        axes.set(title=title, xlabel="step", yscale="log")
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)
