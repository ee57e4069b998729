"""A linear layer whose BF16 weights stay BF16 in memory."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight
from max.nn.layer import Module

from gpt_oss_mxfp4 import ops


class Dense(Module):
    """``y = x @ weight.T + bias``, in x's dtype.

    Args:
        inputs: K, the reduced size.
        outputs: N, rows of the weight matrix.
        device: where the weights lie.
        bias: whether the layer has one.
    """

    def __init__(self, inputs: int, outputs: int, device: DeviceRef, *, bias: bool) -> None:
        super().__init__()
        self.weight = Weight("weight", DType.bfloat16, [outputs, inputs], device)
        self.bias = Weight("bias", DType.bfloat16, [outputs], device) if bias else None

    def __call__(self, x: TensorValue) -> TensorValue:
        """Multiplies x [T, K]; gives [T, N] of x's dtype."""
        return ops.dense(x, self.weight, self.bias)
