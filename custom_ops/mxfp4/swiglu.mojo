"""The gated activation of gpt-oss's experts."""

from std.math import exp

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

    Parameters:
        width: Lanes.

    Args:
        gate: Gate sums, clamped from above.
        up: Up sums, clamped from both sides.
        limit: The clamp.

    Returns:
        The gated values.
    """
    comptime Vector = SIMD[DType.float32, width]
    # Selections, not min and max: a comparison with NaN is false, so NaN passes through.
    var clamped_gate = gate.gt(limit).select(Vector(limit), gate)
    var clamped_up = up.gt(limit).select(Vector(limit), up)
    clamped_up = up.lt(-limit).select(Vector(-limit), clamped_up)
    var sigmoid = 1 / (1 + exp(-_SWIGLU_ALPHA * clamped_gate))
    return (clamped_up + 1) * clamped_gate * sigmoid
