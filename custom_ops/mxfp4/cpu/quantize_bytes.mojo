"""Rows of floats rounded to 8 bits with a scale per group of 32, for dense layers (see `ByteRows`)."""

from std.memory import bitcast
from std.utils.numerics import isfinite, nan

from ..encode import shared_scale, widen_bits
from ..decode import decode_e8m0
from ..format import E8M0_NAN, GROUP_SIZE
from ..pointers import ConstPointer
from .byte_rows import scale_dtype

comptime _INT8_MAX = 127

comptime _E4M3_MAX_EXPONENT = 8
"""The largest E4M3 power of two is 256 = 2^8."""


def quantize_bytes[
    dtype: DType, element: DType
](
    x: ConstPointer[dtype],
    begin: Int,
    end: Int,
    values: MutPointer[UInt8, MutUntrackedOrigin],
    scales: MutPointer[Scalar[scale_dtype(element)], MutUntrackedOrigin],
):
    """Rounds groups begin..end-1 to the nearest, ties to even: `values[32 g + i] = x[32 g + i] / scales[g]`.

    For int8 a scale is the group's largest magnitude / 127, rounded up to bfloat16, so that no value leaves -127..127.
    For float8_e4m3fn it is OCP's for MXFP8, `2^(floor(log2(largest magnitude)) - 8)`, and values saturate at 448.

    Parameters:
        dtype: Of the input, float32 or bfloat16.
        element: What values are: int8 or float8_e4m3fn.

    Args:
        x: [groups, 32], at any address.
        begin: First group.
        end: One past the last.
        values: [groups, 32] bytes.
        scales: [groups]; NaN for groups that are not finite, whose values are 0.
    """
    for group in range(begin, end):
        var source = x.unsafe_load[width=GROUP_SIZE, alignment=1](group * GROUP_SIZE)
        var bits = widen_bits(source)
        var floats = bitcast[DType.float32, GROUP_SIZE](bits)
        var bytes: SIMD[DType.uint8, GROUP_SIZE]
        comptime if element == DType.int8:
            var scale = _round_up_to_bf16(abs(floats).reduce_max() / _INT8_MAX)
            var whole = isfinite(floats).reduce_and()
            if not whole:
                scale = nan[DType.float32]()
            var ratio = floats / scale if scale > 0 else SIMD[DType.float32, GROUP_SIZE](0)
            bytes = bitcast[DType.uint8, GROUP_SIZE](
                round(ratio).cast[DType.int32]().cast[DType.int8]()
            )
            # The upper half of its bits, for a conversion would flush a subnormal scale to zero.
            scales[unsafe_offset=group] = rebind[Scalar[scale_dtype(element)]](
                bitcast[DType.bfloat16]((bitcast[DType.uint32](scale) >> 16).cast[DType.uint16]())
            )
        else:
            var scale = shared_scale[_E4M3_MAX_EXPONENT](bits)
            var ratio = floats / decode_e8m0(SIMD[DType.uint32, 1](scale))[0]
            if scale == E8M0_NAN:
                ratio = SIMD[DType.float32, GROUP_SIZE](0)
            bytes = bitcast[DType.uint8, GROUP_SIZE](ratio.cast[DType.float8_e4m3fn]())
            scales[unsafe_offset=group] = rebind[Scalar[scale_dtype(element)]](
                scale.cast[DType.uint8]()
            )
        values.unsafe_store[alignment=1](group * GROUP_SIZE, bytes)


@inline(.always)
def _round_up_to_bf16(value: Float32) -> Float32:
    """Gives the smallest bfloat16 that is not below a positive value."""
    return bitcast[DType.float32]((bitcast[DType.uint32](value) + 0xFFFF) & 0xFFFF_0000)
