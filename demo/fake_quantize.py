"""MXFP4 rounding inside training: the forward pass sees the rounded weights, the gradient does not notice."""

import torch
from torch import Tensor, nn

from gpt_oss_mxfp4.mxfp4 import E8M0_BIAS, GROUP_SIZE

LARGEST = 6.0
"""The largest E2M1 number."""


def round_to_mxfp4(x: Tensor) -> Tensor:
    """Gives the values that ``mxfp4.quantize`` would store, for groups of 32 along the last axis but one.

    A group's scale is ``2^(floor(log2 amax) - 2)``; elements go to the nearest E2M1 multiple of it, ties to
    the even code, those beyond 6 to 6. Source: OCP Microscaling Formats (MX) v1.0, section 6.3.

    Args:
        x: [..., K, N] finite float32, K a multiple of 32: Hugging Face's layout of the experts in floats.
    """
    groups = x.unflatten(-2, (-1, GROUP_SIZE))
    amax = groups.abs().amax(dim=-2, keepdim=True)
    exponent = torch.frexp(amax).exponent - 3  # frexp's mantissa is in [0.5, 1)
    scale = torch.exp2(exponent.clamp(-E8M0_BIAS, E8M0_BIAS).float())
    y = groups / scale
    magnitude = y.abs()
    # E2M1's spacing is 0.5 below 2, 1 below 4 and 2 above; an even multiple of it is an even code.
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    rounded = ((y / step).round() * step).clamp(-LARGEST, LARGEST)
    return (rounded * scale).flatten(-3, -2)


class StraightThroughMXFP4(nn.Module):
    """A parametrization: a weight rounded to MXFP4, whose gradient is that of the weight itself."""

    def forward(self, weight: Tensor) -> Tensor:
        """Rounds a weight, [E, K, N]."""
        return weight + (round_to_mxfp4(weight.detach()) - weight.detach())
