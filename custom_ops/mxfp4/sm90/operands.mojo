"""Fragments of `mma.m16n8k16` from words of two elements.

Which element an index k of a product stands for is arbitrary, as long as both operands agree. So where a lane has 16
contiguous bytes of a row, words 0 and 1 are its part of one product, and words 2 and 3 of the next.

Source: PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type".
"""

from std.memory import bitcast


@inline(.always)
def operand_a(w0: UInt32, w1: UInt32, w2: UInt32, w3: UInt32) -> SIMD[DType.bfloat16, 8]:
    """Builds a fragment of A.

    Args:
        w0: Row l / 4 of lane l, of the lower 8 k.
        w1: Row l / 4 + 8.
        w2: Row l / 4, of the upper 8 k.
        w3: Row l / 4 + 8.

    Returns:
        The fragment.
    """
    return bitcast[DType.bfloat16, 8](SIMD[DType.uint32, 4](w0, w1, w2, w3))


@inline(.always)
def operand_b(w0: UInt32, w1: UInt32) -> SIMD[DType.bfloat16, 4]:
    """Builds a fragment of B.

    Args:
        w0: Column l / 4 of lane l, of the lower 8 k.
        w1: Of the upper 8 k.

    Returns:
        The fragment.
    """
    return bitcast[DType.bfloat16, 4](SIMD[DType.uint32, 2](w0, w1))
