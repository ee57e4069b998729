"""Activations in the order in which `WeightRows` decode: rows for `dot`, words by tokens for `tile`.

A chunk of a row is the words of its vectors. For int8 words follow, a register each: what products start from, which takes
the weights' zero point back, if they have one; and the scale of each group of 32 activations.
"""

from std.memory import bitcast
from std.utils.numerics import isnan, nan

from ..format import GROUP_SIZE
from ..pointers import ConstPointer
from .transpose import quarter_lane, transpose_square
from .weights import WeightRows, WordPointer, chunk_k, words_per_chunk
from .words import LANES, Words, nearest_bf16

comptime _INT8_MAX = 127

comptime _SMALLEST_NORMAL = Float32(2.0**-126)
"""Of float32."""


def row_words[Rows: WeightRows](chunks: Int) -> Int:
    """Gives the words of a packed row of some chunks, which is also where the next one begins.

    Parameters:
        Rows: The weights' format.

    Args:
        chunks: How many.

    Returns:
        Words.
    """
    comptime if Rows.word == DType.int8:
        return chunks * (x_scales_word[Rows]() + LANES)
    else:
        return chunks * words_per_chunk[Rows]()


def x_scales_word[Rows: WeightRows]() -> Int:
    """Gives where a chunk of int8 words has the scales of its activations.

    Parameters:
        Rows: The weights' format.

    Returns:
        Words before them.
    """
    return words_per_chunk[Rows]() + (LANES if Rows.zero_point else 0)


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
            words = nearest_bf16(bitcast[DType.uint32, LANES](values))
        else:
            words = bitcast[DType.uint32, LANES](values)
        target.unsafe_store(vector * LANES, words)
    else:
        var even_odd = values.deinterleave()
        _split[stride // 2, Rows, round_to_bf16](even_odd[0], vector, 2 * step, target)
        _split[stride // 2, Rows, round_to_bf16](even_odd[1], vector + step, 2 * step, target)


comptime _Group = SIMD[DType.float32, GROUP_SIZE]


@inline(.always)
def _quantize(group: _Group) -> Tuple[SIMD[DType.int8, GROUP_SIZE], Float32]:
    """Gives a group's elements as integers of at most 127, and its scale: the largest magnitude / 127, NaN where an element is
    NaN; rounding is to nearest even.
    """
    var scale = abs(group).reduce_max() / _INT8_MAX
    if scale < _SMALLEST_NORMAL:  # its inverse would overflow
        scale = 0
    var inverse = 1 / scale if scale > 0 else Float32(0)
    var rounded = round(group * inverse)
    if isnan(group).reduce_or():
        scale = nan[DType.float32]()
    return (rounded.cast[DType.int32]().cast[DType.int8](), scale)


@inline(.always)
def _pack_group[Rows: WeightRows](group: _Group, g: Int, target: WordPointer):
    """Writes the words, the scale and the start of a chunk's group g where its weights' lanes are.
    """
    comptime splits = Rows.vectors // Rows.registers
    comptime words = GROUP_SIZE // 4 // splits  # of packed weights
    comptime turned = Rows.registers == 4
    var quantized = _quantize(group)
    var first = g * words
    comptime Split = SIMD[DType.uint32, words]
    var split = Array[Split, splits](fill=Split(0))
    comptime if splits == 2:
        var even_odd = quantized[0].deinterleave()
        split[0] = bitcast[DType.uint32, words](even_odd[0])
        split[1] = bitcast[DType.uint32, words](even_odd[1])
    else:
        split[0] = bitcast[DType.uint32, words](quantized[0])
    comptime for n in range(splits):
        comptime if turned:
            comptime for i in range(words):
                var vector = splits * (i % 4) + n
                target[unsafe_offset=vector * LANES + quarter_lane((first + i) // 4)] = split[n][i]
        else:
            target.unsafe_store[alignment=4](n * LANES + first, split[n])
    # The whole correction in a group's first lane: the group's lanes are added up anyway.
    var start = Int32(-Rows.zero_point) * quantized[0].cast[DType.int32]().reduce_add()
    comptime lanes = words // Rows.registers
    comptime for i in range(lanes):
        var lane = quarter_lane(g * lanes + i) if turned else first + i
        comptime if Rows.zero_point:
            target[unsafe_offset=words_per_chunk[Rows]() + lane] = bitcast[DType.uint32](
                start if i == 0 else Int32(0)
            )
        target[unsafe_offset=x_scales_word[Rows]() + lane] = bitcast[DType.uint32](quantized[1])


def pack_row[
    Rows: WeightRows, round_to_bf16: Bool
](x: ConstPointer[DType.float32], k: Int, chunks: Int, target: WordPointer):
    """Packs one row of activations into the order of decoded weights, zeros after its end.

    Parameters:
        Rows: The weights that will be multiplied by it.
        round_to_bf16: Whether elements are rounded to bfloat16 even where words are float32.

    Args:
        x: [k] float32.
        k: Elements in the row; where words are int8 a multiple of 32.
        chunks: Chunks in a weight row, ceil(k / chunk_k).
        target: [row_words] words.
    """
    comptime size = chunk_k[Rows]()
    for chunk in range(chunks):
        var source = x.unsafe_offset(chunk * size)
        var left = k - chunk * size
        var words = target.unsafe_offset(row_words[Rows](chunk))
        comptime if Rows.word == DType.int8:
            for g in range(size // GROUP_SIZE):
                var group = _Group(0)
                if g * GROUP_SIZE < left:
                    group = source.unsafe_load[width=GROUP_SIZE, alignment=4](g * GROUP_SIZE)
                _pack_group[Rows](group, g, words)
        else:
            var values = SIMD[DType.float32, size](0)
            if left >= size:
                values = source.unsafe_load[width=size, alignment=4]()
            else:
                for i in range(left):
                    values[i] = source[unsafe_offset=i]
            _split[Rows.vectors, Rows, round_to_bf16](values, 0, 1, words)


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
        row_words: Words in a row, a multiple of LANES.
        stride: Words from one target line to the next.
        target: [row_words, stride], whose first LANES columns are written.
    """
    for first in range(0, row_words, LANES):
        var square = Array[Words, LANES](fill=Words(0))
        comptime for i in range(LANES):
            if i < count:
                square[i] = rows.unsafe_load[width=LANES](i * row_words + first)
        transpose_square(square)
        comptime for i in range(LANES):
            target.unsafe_store((first + i) * stride, square[i])
