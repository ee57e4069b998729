"""Decodes a word of codes to the A fragment of 16 k: spreads the bits, then multiplies once, exactly, by the scale."""

from std.memory import bitcast

from ..layouts.sm90_tiles import spread_scales, spread_word

comptime Pair = SIMD[DType.bfloat16, 2]
"""A 32-bit register of two bfloat16."""

comptime Fragment = SIMD[DType.bfloat16, 8]
"""A lane's four registers of A, the low half of each first."""


@inline(.always)
def decode_scales[group: Int](scales: UInt32) -> Pair:
    """Returns the factors of a lane's codes in a scale group.

    The stored byte s + 126 is the exponent field of the bfloat16 2^(s - 1); times the 2^-126 by which `spread_word`
    leaves codes scaled, that is 2^(s - 127).

    Parameters:
        group: The group of 32 k, 0..1.

    Args:
        scales: A lane's word of scales in a tile, see `scales_byte`.

    Returns:
        The factors of the lane's first row and of its lower row.
    """
    return bitcast[DType.bfloat16, 2](spread_scales[group](scales))


@inline(.always)
def decode_word(word: UInt32, factors: Pair) -> Fragment:
    """Decodes eight codes.

    Exact for scale bytes 0..128: a bfloat16 product is rounded only if it has more than eight significant bits, and at
    most two bits times a power of two never do. Results below 2^-126 are subnormals, which PTX keeps.

    Args:
        word: The codes.
        factors: Those of the lane's first row and of its lower row.

    Returns:
        The weights.
    """
    var spread = spread_word(word)
    # Duplicating a factor costs no instruction: a multiplication can use one register half for both products.
    var first = Pair(factors[0])
    var lower = Pair(factors[1])
    var a0 = bitcast[DType.bfloat16, 2](spread[0]) * first
    var a1 = bitcast[DType.bfloat16, 2](spread[1]) * lower
    var a2 = bitcast[DType.bfloat16, 2](spread[2]) * first
    var a3 = bitcast[DType.bfloat16, 2](spread[3]) * lower
    return a0.join(a1).join(a2.join(a3))
