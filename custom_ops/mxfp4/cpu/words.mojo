"""The 32-bit words that CPU kernels multiply: two bfloat16 (where the CPU has vdpbf16ps) or one float32."""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of

comptime LANES = simd_width_of[DType.float32]()
"""Words in a vector register: 16 with AVX-512, 8 with AVX and AVX2, 4 with NEON and SSE."""

comptime Words = SIMD[DType.uint32, LANES]
"""A register of words."""

comptime Floats = SIMD[DType.float32, LANES]
"""A register of float32 sums, one to a word."""

comptime HAS_BF16_DOT = CompilationTarget._has_feature["avx512bf16"]() and LANES == 16
"""Whether the CPU multiplies pairs of bfloat16 into float32 sums (vdpbf16ps)."""


def per_word(word: DType) -> Int:
    """Gives the elements in one 32-bit word.

    Args:
        word: What a word holds: bfloat16 or float32.

    Returns:
        2 or 1.
    """
    return 2 if word == DType.bfloat16 else 1


@inline(.always)
def multiply_add[word: DType](acc: Floats, a: Words, b: Words) -> Floats:
    """Adds to each lane the product of its two words: `acc + sum_i a_i * b_i` over a word's elements.

    Parameters:
        word: What a word holds: bfloat16 or float32.

    Args:
        acc: Sums so far.
        a: One operand.
        b: The other.

    Returns:
        The new sums. In bfloat16 the instruction treats subnormal inputs and sums as zero, whatever the mode.
    """
    comptime if word == DType.bfloat16:
        comptime assert HAS_BF16_DOT, "bfloat16 words need vdpbf16ps"
        return bitcast[DType.float32, LANES](
            llvm_intrinsic[
                "llvm.x86.avx512bf16.dpbf16ps.512",
                SIMD[DType.float32, 16],
                has_side_effect=False,
            ](
                bitcast[DType.float32, 16](acc),
                bitcast[DType.bfloat16, 32](a),
                bitcast[DType.bfloat16, 32](b),
            )
        )
    else:
        return bitcast[DType.float32, LANES](a).fma(bitcast[DType.float32, LANES](b), acc)
