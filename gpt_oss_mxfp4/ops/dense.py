"""Matmul with BF16 weights."""

from __future__ import annotations

from max.dtype import DType
from max.graph import TensorType, TensorValue, TensorValueLike, ops

from gpt_oss_mxfp4.ops.checks import cpu_only, require, require_dim


def dense(
    x: TensorValueLike, w: TensorValueLike, bias: TensorValueLike | None = None
) -> TensorValue:
    """Multiplies by BF16 weights that stay BF16 in memory: ``y = x @ w.T + bias``.

    Args:
        x: [T, K] float32 on the CPU, bfloat16 on a GPU.
        w: [N, K] bfloat16.
        bias: [N] bfloat16, or None.

    Returns:
        [T, N] of x's dtype. On the CPU products are exact in float32 and summed in float32.

    Raises:
        ValueError: wrong rank, dtype or size.
    """
    op = "dense.matmul"
    x, w = TensorValue(x), TensorValue(w)
    values = [x, w] if bias is None else [x, w, TensorValue(bias)]
    require(op, "w", w, 2, DType.bfloat16)
    require_dim(op, "w.shape[1]", w.shape[1], "x.shape[1]", x.shape[1])
    if bias is not None:
        require(op, "bias", values[2], 1, DType.bfloat16)
        require_dim(op, "bias.shape[0]", values[2].shape[0], "w.shape[0]", w.shape[0])
    if not x.device.is_cpu():  # MAX's own GPU matmul takes BF16 as it is
        require(op, "x", x, 2, DType.bfloat16)
        y = x @ w.transpose(0, 1)
        return y if bias is None else y + values[2]
    device = cpu_only(op, *values)
    require(op, "x", x, 2, DType.float32)
    return ops.custom(
        op if bias is None else "dense.matmul_bias",
        device,
        values,
        [TensorType(DType.float32, [x.shape[0], w.shape[0]], device)],
    )[0].tensor
