"""The 32-bit words that CPU kernels multiply: one float32, two bfloat16 (vdpbf16ps) or four int8 (vpdpbusd)."""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of

comptime LANES = max(8, simd_width_of[DType.float32]())
"""Words in a vector register: 16 with AVX-512, 8 with AVX and AVX2, and 8 in a pair of registers with NEON and SSE."""

comptime Words = SIMD[DType.uint32, LANES]
"""A register of words."""

comptime Floats = SIMD[DType.float32, LANES]
"""A register of float32 sums, one to a word."""

comptime HAS_BF16_DOT = CompilationTarget._has_feature["avx512bf16"]() and LANES == 16
"""Whether the CPU multiplies pairs of bfloat16 into float32 sums (vdpbf16ps)."""

comptime HAS_INT8_DOT = CompilationTarget._has_feature["avx512vnni"]() and LANES == 16
"""Whether the CPU multiplies fours of bytes into int32 sums (vpdpbusd)."""


def word_of(activations: DType) -> DType:
    """Gives what words hold on this CPU where activations are rounded to a dtype.

    Args:
        activations: The dtype, float32, bfloat16 or int8.

    Returns:
        The dtype: float32 also for bfloat16 where the CPU does not multiply that.
    """
    if activations == DType.bfloat16 and not HAS_BF16_DOT:
        return DType.float32
    return activations


def per_word(word: DType) -> Int:
    """Gives the elements in one 32-bit word.

    Args:
        word: What a word holds: float32, bfloat16 or int8.

    Returns:
        1, 2 or 4.
    """
    return 4 if word == DType.int8 else 2 if word == DType.bfloat16 else 1


def sum_dtype(word: DType) -> DType:
    """Gives the dtype that products of words are summed in.

    Args:
        word: What a word holds: float32, bfloat16 or int8.

    Returns:
        The dtype: int32 for int8, float32 for the others.
    """
    return DType.int32 if word == DType.int8 else DType.float32


comptime Sums[word: DType] = SIMD[sum_dtype(word), LANES]
"""A register of sums of products, one to a word.

Parameters:
    word: What a word holds.
"""


@inline(.always)
def multiply_add[word: DType](acc: Sums[word], a: Words, b: Words) -> Sums[word]:
    """Adds to each lane the product of its two words: `acc + sum_i a_i * b_i` over a word's elements.

    Parameters:
        word: What a word holds: float32, bfloat16 or int8.

    Args:
        acc: Sums so far.
        a: Words of weights; for int8 bytes without sign.
        b: Words of activations; for int8 bytes with sign.

    Returns:
        The new sums. In bfloat16 the instruction treats subnormal inputs and sums as zero, whatever the mode.
    """
    comptime if word == DType.bfloat16:
        comptime assert HAS_BF16_DOT, "bfloat16 words need vdpbf16ps"
        return rebind[Sums[word]](
            llvm_intrinsic[
                "llvm.x86.avx512bf16.dpbf16ps.512",
                SIMD[DType.float32, 16],
                has_side_effect=False,
            ](
                rebind[SIMD[DType.float32, 16]](acc),
                bitcast[DType.bfloat16, 32](a),
                bitcast[DType.bfloat16, 32](b),
            )
        )
    elif word == DType.int8:
        comptime if HAS_INT8_DOT:
            return rebind[Sums[word]](
                llvm_intrinsic[
                    "llvm.x86.avx512.vpdpbusd.512",
                    SIMD[DType.int32, 16],
                    has_side_effect=False,
                ](
                    rebind[SIMD[DType.int32, 16]](acc),
                    bitcast[DType.uint8, 64](a),
                    bitcast[DType.int8, 64](b),
                )
            )
        else:
            var sums = rebind[SIMD[DType.int32, LANES]](acc)
            var signed = bitcast[DType.int32, LANES](b)
            comptime for i in range(4):
                var weight = ((a >> UInt32(8 * i)) & 0xFF).cast[DType.int32]()
                sums += weight * ((signed << Int32(24 - 8 * i)) >> 24)
            return rebind[Sums[word]](sums)
    else:
        return rebind[Sums[word]](
            bitcast[DType.float32, LANES](a).fma(
                bitcast[DType.float32, LANES](b), rebind[Floats](acc)
            )
        )
