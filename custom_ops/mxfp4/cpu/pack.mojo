"""Activations in the order in which `WeightRows` decode: rows for `dot`, words by tokens for `tile`."""

from std.memory import bitcast

from ..pointers import ConstPointer
from .weights import WeightRows, chunk_k, chunk_words
from .words import LANES, Words

comptime WordPointer = MutPointer[UInt32, MutUntrackedOrigin]
"""Packed words, in a buffer of the op's own."""


@inline(.always)
def _split[
    width: SIMDLength, //, stride: Int, Rows: WeightRows, round_to_bf16: Bool
](values: SIMD[DType.float32, width], vector: Int, step: Int, target: WordPointer,):
    """Separates a chunk's elements by their residue modulo the number of vectors, one halving a level.

    At a leaf, `values` are the elements of one vector, in order.
    """
    comptime if stride == 1:
        var words: Words
        comptime if Rows.word == DType.bfloat16:
            words = bitcast[DType.uint32, LANES](values.cast[DType.bfloat16]())
        elif round_to_bf16:
            words = bitcast[DType.uint32, LANES](
                values.cast[DType.bfloat16]().cast[DType.float32]()
            )
        else:
            words = bitcast[DType.uint32, LANES](values)
        target.unsafe_store(vector * LANES, words)
    else:
        var even_odd = values.deinterleave()
        _split[stride // 2, Rows, round_to_bf16](even_odd[0], vector, 2 * step, target)
        _split[stride // 2, Rows, round_to_bf16](even_odd[1], vector + step, 2 * step, target)


def pack_row[
    Rows: WeightRows, round_to_bf16: Bool
](x: ConstPointer[DType.float32], k: Int, chunks: Int, target: WordPointer):
    """Packs one row of activations into the order of decoded weights, zeros after its end.

    Parameters:
        Rows: The weights that will be multiplied by it.
        round_to_bf16: Whether elements are rounded to bfloat16 even where words are float32.

    Args:
        x: [k] float32.
        k: Elements in the row.
        chunks: Chunks in a weight row, ceil(k / chunk_k).
        target: [chunks * chunk_words] words.
    """
    comptime size = chunk_k[Rows]()
    for chunk in range(chunks):
        var source = x.unsafe_offset(chunk * size)
        var left = k - chunk * size
        var values = SIMD[DType.float32, size](0)
        if left >= size:
            values = source.unsafe_load[width=size, alignment=4]()
        else:
            for i in range(left):
                values[i] = source[unsafe_offset=i]
        _split[Rows.vectors, Rows, round_to_bf16](
            values, 0, 1, target.unsafe_offset(chunk * chunk_words[Rows]())
        )


def transpose_rows(
    rows: WordPointer,
    count: Int,
    row_words: Int,
    stride: Int,
    target: WordPointer,
):
    """Turns up to LANES packed rows into [row_words, LANES] columns of a tile, zeros for absent rows.

    Args:
        rows: [LANES, row_words], of which the first `count` rows are set.
        count: Rows present.
        row_words: Words in a row.
        stride: Words from one target line to the next.
        target: [row_words, stride], whose first LANES columns are written.
    """
    for word in range(row_words):
        var column = Words(0)
        for i in range(count):
            column[i] = rows[unsafe_offset=i * row_words + word]
        target.unsafe_store(word * stride, column)
