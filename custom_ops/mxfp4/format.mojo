"""MXFP4's constants, the twin of `gpt_oss_mxfp4/mxfp4.py` (a test pins the two equal)."""

comptime GROUP_SIZE = 32
"""Elements that share one scale, along the reduced axis."""

comptime BYTES_PER_GROUP = 16
"""Bytes of E2M1 codes in a group: two codes a byte, the earlier element in the low nibble."""

comptime E2M1_MAX_EXPONENT = 2
"""The largest E2M1 power of two is 4 = 2^2."""

comptime E8M0_BIAS = 127
"""A scale byte s means 2^(s - 127)."""

comptime E8M0_NAN = 255
"""The one scale byte that is not a number."""


def e2m1_value(code: Int) -> Float32:
    """Gives the value of a 4-bit code `s e1 e0 m`, straight from the format's definition.

    Args:
        code: The code; bits above the fourth are ignored.

    Returns:
        (-1)^s * 2^(e - 1) * (1 + m/2) for e > 0, and (-1)^s * m/2 for e = 0.
    """
    var exponent = (code >> 1) & 3
    var mantissa = Float32(code & 1) * 0.5
    var magnitude = mantissa if exponent == 0 else (1 + mantissa) * Float32(1 << (exponent - 1))
    return -magnitude if code & 8 else magnitude
