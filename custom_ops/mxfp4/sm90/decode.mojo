"""A word of codes to the A fragment of a step of 16 k: spread the bits, then one exact multiplication by the scale."""

from std.memory import bitcast

from ..layouts.sm90_tiles import spread_scales, spread_word

comptime Pair = SIMD[DType.bfloat16, 2]
"""A 32-bit register of two bfloat16."""

comptime Fragment = SIMD[DType.bfloat16, 8]
"""A lane's four registers of A, the low half of each first."""


@inline(.always)
def decode_scales[group: Int](scales: UInt32) -> Pair:
    """Gives what a lane's codes of a group are multiplied by.

    The stored byte s + 126 is the exponent field of the bfloat16 2^(s - 1): times 2^-126, in which `spread_word` leaves
    codes, that is 2^(s - 127).

    Parameters:
        group: The group of 32 k, 0..1.

    Args:
        scales: A lane's word of scales in a tile, as `scales_byte` says.

    Returns:
        The factors of the lane's first row and of its lower one.
    """
    return bitcast[DType.bfloat16, 2](spread_scales[group](scales))


@inline(.always)
def decode_word(word: UInt32, factors: Pair) -> Fragment:
    """Decodes eight codes.

    Exact for scale bytes 0..128, as a bfloat16 multiplication rounds a product only if it has more than eight bits, which
    two or fewer bits times a power of two have not; results below 2^-126 are subnormals, which PTX keeps.

    Args:
        word: The codes.
        factors: Of the lane's first row and of its lower one.

    Returns:
        The weights.
    """
    var spread = spread_word(word)
    # Either factor twice is no instruction: a multiplication takes one half of a register for both.
    var first = Pair(factors[0])
    var lower = Pair(factors[1])
    var a0 = bitcast[DType.bfloat16, 2](spread[0]) * first
    var a1 = bitcast[DType.bfloat16, 2](spread[1]) * lower
    var a2 = bitcast[DType.bfloat16, 2](spread[2]) * first
    var a3 = bitcast[DType.bfloat16, 2](spread[3]) * lower
    return a0.join(a1).join(a2.join(a3))
