"""How far one result is from another: the measures that `tests.tolerances` bounds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class RelativeError:
    """Errors of an op, as shares of the root mean square of what was wanted."""

    maximum: float
    rms: float


@dataclass(frozen=True)
class LogitError:
    """Errors of logits, as shares of their range (the largest minus the smallest wanted)."""

    maximum: float
    mean: float
    top1: float
    """Share of positions whose largest logit is the same one."""


def relative_error(got: ArrayLike, want: ArrayLike) -> RelativeError:
    """``max|got - want| / rms(want)`` and ``rms(got - want) / rms(want)``.

    Measured against the whole array and not element by element, because a sum that happens to
    cancel has no relative accuracy. Empty arrays have no error; a NaN in either makes both NaN.

    Args:
        got: [...] floats.
        want: [...] floats of the same shape.
    """
    got, want = _same_shape(got, want)
    if want.size == 0:
        return RelativeError(0.0, 0.0)
    size = np.sqrt(np.mean(want**2))
    error = np.abs(got - want) / (size if size > 0 else 1.0)
    return RelativeError(float(error.max()), float(np.sqrt(np.mean(error**2))))


def logit_error(got: ArrayLike, want: ArrayLike) -> LogitError:
    """Maximum and mean of ``|got - want| / range(want)``, and how often the top token agrees.

    Args:
        got: [positions, vocabulary] floats.
        want: [positions, vocabulary] floats.
    """
    got, want = _same_shape(got, want)
    error = np.abs(got - want) / np.ptp(want)
    top1 = np.mean(got.argmax(axis=-1) == want.argmax(axis=-1))
    return LogitError(float(error.max()), float(error.mean()), float(top1))


def _same_shape(got: ArrayLike, want: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; broadcasting would compare a wrong shape silently."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shapes must be equal, got {got.shape}, wanted {want.shape}"
    return got, want
