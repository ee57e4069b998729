"""Matmuls of dense layers: BF16 weights, or weights of 8 bits with a scale per group of 32."""

from __future__ import annotations

from typing import Literal, get_args

from max.dtype import DType
from max.graph import StaticDim, TensorType, TensorValue, TensorValueLike, ops

from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE
from gpt_oss_mxfp4.ops.checks import (
    activation_parameter,
    common_device,
    cpu_only,
    require,
    require_dim,
)
from gpt_oss_mxfp4.options import Activations, DenseKernel

QuantizedFormat = Literal["int8", "mxfp8"]
"""A format of 8 bits."""

QUANTIZED_DTYPES: dict[str, tuple[DType, DType]] = {
    "int8": (DType.int8, DType.bfloat16),
    "mxfp8": (DType.uint8, DType.uint8),
}
"""Dtypes of values and scales of each format; E4M3 travels as its bytes."""


def dense(
    x: TensorValueLike,
    w: TensorValueLike,
    bias: TensorValueLike | None = None,
    activations: Activations = "float32",
    dtype: DType | None = None,
    kernel: DenseKernel = "max",
) -> TensorValue:
    """Multiplies by BF16 weights that stay BF16 in memory: ``y = x @ w.T + bias``.

    On a GPU MAX's matmul does it, which rounds its products before the bias is added. It is told by an epilogue of ours
    what to store: by itself it stores whole tiles on Hopper, past the last of x's rows (NOTES F90). With ``kernel``
    "sm90" and a bias up to 32 tokens go to our own kernel for Hopper, which has a block of threads for 32 outputs, or
    for 8 of few, so that the weights are read by the whole GPU, and adds the bias to float32 sums.

    Args:
        x: [T, K] float32 on the CPU, bfloat16 on a GPU; K a multiple of 32 for our kernel there.
        w: [N, K] bfloat16.
        bias: [N] bfloat16, or None.
        activations: what x is rounded to first on the CPU: "float32" not at all, anything else bf16, for BF16 weights
            are not multiplied by less.
        dtype: of the result, or None for x's: bfloat16 on a GPU, or float32 where the graph knows N and K, as MAX's
            matmul on Hopper has no other way.
        kernel: what multiplies few tokens on a GPU.

    Returns:
        [T, N] of that dtype. On the CPU products are exact in float32; everywhere they are summed in float32.

    Raises:
        ValueError: wrong rank, dtype or size.
    """
    x, w = TensorValue(x), TensorValue(w)
    on_cpu = x.device.is_cpu()
    op = "dense.matmul" + ("" if bias is None else "_bias") + ("" if on_cpu else "_gpu")
    values = [x, w] if bias is None else [x, w, TensorValue(bias)]
    require(op, "x", x, 2, DType.float32 if on_cpu else DType.bfloat16)
    require(op, "w", w, 2, DType.bfloat16)
    require_dim(op, "w.shape[1]", w.shape[1], "x.shape[1]", x.shape[1])
    if bias is not None:
        _check_bias(op, values[2], "w", w)
    rounded = activation_parameter(op, activations)
    dtype = dtype or x.dtype
    parameters: dict[str, bool | int | str | DType] = {}
    device = common_device(op, *values)
    if on_cpu:
        parameters["activations"] = DType.float32 if rounded == DType.float32 else DType.bfloat16
        made_of = DType.float32
    else:
        if dtype not in (DType.bfloat16, DType.float32):
            raise ValueError(f"{op}: dtype must be DType.bfloat16 or DType.float32, got {dtype}")
        unknown = next((size for size in w.shape if not isinstance(size, StaticDim)), None)
        if dtype == DType.float32 and unknown is not None:
            raise ValueError(
                f"{op}: w.shape must be known to the graph for a result of DType.float32, got {unknown}"
            )
        parameters["dtype"] = made_of = dtype
        if bias is not None:
            parameters["few"] = kernel == "sm90"
            k = w.shape[1]
            if kernel == "sm90" and isinstance(k, StaticDim) and int(k) % GROUP_SIZE != 0:
                raise ValueError(f"{op}: x.shape[1] must be a multiple of {GROUP_SIZE}, got {k}")
    y = TensorType(made_of, [x.shape[0], w.shape[0]], device)
    return ops.custom(op, device, values, [y], parameters=parameters)[0].tensor.cast(dtype)


def quantize_dense(w: TensorValueLike, form: QuantizedFormat) -> tuple[TensorValue, TensorValue]:
    """Rounds weights to 8 bits: ``w[n, 32g + i] ~ values[n, 32g + i] * scales[n, g]``, to nearest, ties to even.

    "int8": integers of -127 to 127, and scales ``amax / 127`` rounded up to bfloat16. "mxfp8": E4M3 values, which
    saturate at 448, and scales ``2^(floor(log2(amax)) - 8)``. A group with a NaN or an infinity has the scale NaN.

    Args:
        w: [N, K] bfloat16 on the CPU, K a multiple of 32.
        form: "int8" or "mxfp8".

    Returns:
        values [N, K] int8 and scales [N, K/32] bfloat16; or values [N, K] uint8, the bytes of E4M3, and scales
        [N, K/32] uint8, E8M0.

    Raises:
        ValueError: wrong rank or dtype, another format, a K that is no multiple of 32 (at run time where K is
            symbolic), or a GPU device (no kernel).

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.1 and 6.3, for MXFP8.
    """
    op = "dense.quantize"
    w = TensorValue(w)
    device = cpu_only(op, w)
    require(op, "w", w, 2, DType.bfloat16)
    if form not in get_args(QuantizedFormat):
        raise ValueError(f'{op}: format must be "int8" or "mxfp8", got "{form}"')
    rows, k = w.shape
    if isinstance(k, StaticDim) and int(k) % GROUP_SIZE != 0:
        raise ValueError(f"{op}: w.shape[1] must be a multiple of {GROUP_SIZE}, got {k}")
    value_dtype, scale_dtype = QUANTIZED_DTYPES[form]
    values, scales = ops.custom(
        op,
        device,
        [w],
        [
            TensorType(value_dtype, [rows, k], device),
            TensorType(scale_dtype, [rows, k // GROUP_SIZE], device),
        ],
    )
    return values.tensor, scales.tensor


def quantized_dense(
    x: TensorValueLike,
    values: TensorValueLike,
    scales: TensorValueLike,
    bias: TensorValueLike | None = None,
    activations: Activations = "float32",
) -> TensorValue:
    """Multiplies by weights of 8 bits: ``y = x @ (values * scales).T + bias``.

    Args:
        x: [T, K] float32 on the CPU.
        values: [N, K], from :func:`quantize_dense`.
        scales: [N, K/32], from :func:`quantize_dense`.
        bias: [N] bfloat16, or None.
        activations: what x is rounded to first: "float32" not at all, "bfloat16", or "int8" with a scale
            ``amax / 127`` for each 32 elements; MXFP8 weights are multiplied by bf16 at least.

    Returns:
        [T, N] float32; products are exact, sums float32.

    Raises:
        ValueError: wrong rank, dtype or size, or inputs on a GPU (no kernel).
    """
    op = "dense.matmul_quantized"
    x, values, scales = TensorValue(x), TensorValue(values), TensorValue(scales)
    inputs = [x, values, scales] if bias is None else [x, values, scales, TensorValue(bias)]
    device = cpu_only(op, *inputs)
    require(op, "x", x, 2, DType.float32)
    require(op, "values", values, 2, DType.int8, DType.uint8)
    is_int8 = values.dtype == DType.int8
    require(op, "scales", scales, 2, QUANTIZED_DTYPES["int8" if is_int8 else "mxfp8"][1])
    require_dim(op, "values.shape[1]", values.shape[1], "x.shape[1]", x.shape[1])
    require_dim(op, "scales.shape[0]", scales.shape[0], "values.shape[0]", values.shape[0])
    require_dim(op, "32 * scales.shape[1]", scales.shape[1] * GROUP_SIZE, "x.shape[1]", x.shape[1])
    if bias is not None:
        _check_bias(op, inputs[3], "values", values)
    rounded = activation_parameter(op, activations)
    return ops.custom(
        op if bias is None else "dense.matmul_quantized_bias",
        device,
        inputs,
        [TensorType(DType.float32, [x.shape[0], values.shape[0]], device)],
        parameters={
            "activations": DType.bfloat16 if rounded == DType.int8 and not is_int8 else rounded,
        },
    )[0].tensor


def _check_bias(op: str, bias: TensorValue, of: str, weights: TensorValue) -> None:
    require(op, "bias", bias, 1, DType.bfloat16)
    require_dim(op, "bias.shape[0]", bias.shape[0], f"{of}.shape[0]", weights.shape[0])
