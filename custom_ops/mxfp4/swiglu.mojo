"""The gated activation of gpt-oss's experts."""

from std.math import exp, exp2, recip
from std.math.constants import log2e
from std.sys import is_nvidia_gpu
from std.sys._assembly import inlined_assembly

comptime _SWIGLU_ALPHA = Float32(1.702)
"""Slope of the gate's sigmoid. Source: openai/gpt-oss torch/model.py."""


@inline(.always)
def swiglu[
    width: SIMDLength, //
](
    gate: SIMD[DType.float32, width],
    up: SIMD[DType.float32, width],
    limit: Float32,
) -> SIMD[
    DType.float32, width
]:
    """Gives `(up + 1) * gate * sigmoid(1.702 * gate)` of clamped inputs; NaN stays NaN.

    On NVIDIA GPUs the exponential and the reciprocal are approximate instructions, far closer than bfloat16's rounding; a
    division would be a call.

    Parameters:
        width: Lanes.

    Args:
        gate: Gate sums, clamped from above.
        up: Up sums, clamped from both sides.
        limit: The clamp.

    Returns:
        The gated values.
    """
    var clamped_gate = _least(gate, limit)
    var clamped_up = _greatest(_least(up, limit), -limit)
    var e: SIMD[DType.float32, width]
    comptime if is_nvidia_gpu():
        # What its `exp` multiplies by, too, is multiplied beforehand.
        e = exp2(-_SWIGLU_ALPHA * Float32(log2e) * clamped_gate)
    else:
        e = exp(-_SWIGLU_ALPHA * clamped_gate)
    return (clamped_up + 1) * clamped_gate * recip(1 + e)


@inline(.always)
def _least[
    width: SIMDLength, //
](x: SIMD[DType.float32, width], limit: Float32) -> SIMD[DType.float32, width]:
    """Gives the smaller one, or NaN where x is NaN, as `min` does not."""
    comptime if is_nvidia_gpu():
        comptime assert width == 1, "a thread has one output at a time"
        return inlined_assembly[
            "min.NaN.f32 $0, $1, $2;", Float32, constraints="=f,f,f", has_side_effect=False
        ](x[0], limit)
    return x.gt(limit).select(SIMD[DType.float32, width](limit), x)


@inline(.always)
def _greatest[
    width: SIMDLength, //
](x: SIMD[DType.float32, width], limit: Float32) -> SIMD[DType.float32, width]:
    """Gives the larger one, or NaN where x is NaN, as `max` does not."""
    comptime if is_nvidia_gpu():
        comptime assert width == 1, "a thread has one output at a time"
        return inlined_assembly[
            "max.NaN.f32 $0, $1, $2;", Float32, constraints="=f,f,f", has_side_effect=False
        ](x[0], limit)
    return x.lt(limit).select(SIMD[DType.float32, width](limit), x)
