"""A linear layer whose weights stay in memory as they are loaded: BF16, or 8 bits with a scale per group."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight
from max.nn.layer import Module

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE
from gpt_oss_mxfp4.ops.dense import QUANTIZED_DTYPES
from gpt_oss_mxfp4.options import LayerOptions


class Dense(Module):
    """``y = x @ weight.T + bias``, in x's dtype.

    Args:
        inputs: K, the reduced size.
        outputs: N, rows of the weight matrix.
        device: where the weights lie.
        options: how it multiplies.
        bias: whether the layer has one.
    """

    def __init__(
        self, inputs: int, outputs: int, device: DeviceRef, options: LayerOptions, *, bias: bool
    ) -> None:
        super().__init__()
        self.options = options
        if options.dense_weights == "bfloat16":
            self.weight = Weight("weight", DType.bfloat16, [outputs, inputs], device)
        else:
            values, scales = QUANTIZED_DTYPES[options.dense_weights]
            self.weight_values = Weight("weight_values", values, [outputs, inputs], device)
            self.weight_scales = Weight(
                "weight_scales", scales, [outputs, inputs // GROUP_SIZE], device
            )
        self.bias = Weight("bias", DType.bfloat16, [outputs], device) if bias else None

    def __call__(self, x: TensorValue, dtype: DType | None = None) -> TensorValue:
        """Multiplies x [T, K]; gives [T, N] of a dtype, of x's unless told otherwise."""
        if self.options.dense_weights == "bfloat16":
            options = self.options
            return ops.dense(x, self.weight, self.bias, options.activations, dtype, options.dense)
        return ops.quantized_dense(
            x, self.weight_values, self.weight_scales, self.bias, self.options.activations
        ).cast(dtype or x.dtype)
