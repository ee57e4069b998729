"""Weight rows times many rows of activations, activations in the lanes, weights broadcast one word at a time.

    for a few chunks: for _ROWS weight rows: decode the chunks to a small buffer
        for TM * LANES tokens:
            y[row, tokens] += sum over the chunks' words of broadcast(word) * x[word, tokens]

Limited by arithmetic: sums stay in registers through the chunks, whose x is in L1. Scales are folded into words where they
fit; where not, sums of a group are multiplied by its scale, so that each of the 256 scale bytes is exact. Sums of int8 words are
by group in any case, for each token's scales; MXFP4's weight scale is folded into what they start from (`WeightRows.folds`).
"""

from std.math import ceildiv
from std.memory import bitcast

from .dot import TILE_N, FloatPointer, scales_per_row
from .pack import row_words, x_scales_word
from .weights import (
    WeightRows,
    WordPointer,
    chunk_k,
    groups_per_chunk,
    lane_scales,
    words_per_chunk,
)
from .words import LANES, Floats, PairSums, Sums, Words, multiply_add, multiply_add_of_group

comptime _ROWS = 8 if LANES == 16 else 4
"""Weight rows that are decoded together."""

comptime _TM = 3
"""Most registers of tokens in the register tile."""

comptime _STEP_VECTORS = 4
"""Vectors of words, in one chunk or several, between a sum's way from memory to a register and back."""

comptime _SCALED_ROWS = 4
"""Weight rows in the register tile where a group's products are kept beside the sums."""

comptime _UNROLL = 4
"""Words between two jumps."""


def _chunks_per_step[Rows: WeightRows]() -> Int:
    return max(1, _STEP_VECTORS // Rows.vectors)


def _words_per_step[Rows: WeightRows]() -> Int:
    return _chunks_per_step[Rows]() * words_per_chunk[Rows]()


def _scales_per_step[Rows: WeightRows]() -> Int:
    return _chunks_per_step[Rows]() * groups_per_chunk[Rows]()


def _goes_by_groups[Rows: WeightRows, fold: Bool]() -> Bool:
    """Whether a group's products are summed by themselves: for the weights' scale, or each token's.
    """
    return Rows.group_lanes > 0 and (Rows.word == DType.int8 or not fold)


@inline(.always)
def _load_tokens[tm: Int](line: WordPointer) -> Array[Words, tm]:
    var tokens = Array[Words, tm](fill=Words(0))
    comptime for t in range(tm):
        tokens[t] = line.unsafe_load[width=LANES](t * LANES)
    return tokens^


@inline(.always)
def _multiply_words[
    Rows: WeightRows, nr: Int, tm: Int
](words: WordPointer, x: WordPointer, chunks: Int, stride: Int, y: FloatPointer):
    """Adds some chunks' products of nr weight rows and tm registers of tokens to y, words being scaled or not.
    """
    var sums = Array[Sums[Rows.word], nr * tm](fill=Sums[Rows.word](0))
    comptime for r in range(nr):
        comptime for t in range(tm):
            sums[r * tm + t] = rebind[Sums[Rows.word]](
                y.unsafe_load[width=LANES](r * stride + t * LANES)
            )
    for i in range(chunks * words_per_chunk[Rows]() // _UNROLL):
        comptime for u in range(_UNROLL):
            var word = i * _UNROLL + u
            var tokens = _load_tokens[tm](x.unsafe_offset(word * stride))
            comptime for r in range(nr):
                var weight = Words(words[unsafe_offset=r * _words_per_step[Rows]() + word])
                comptime for t in range(tm):
                    sums[r * tm + t] = multiply_add[Rows.word, Rows.zero_point](
                        sums[r * tm + t], weight, tokens[t]
                    )
    comptime for r in range(nr):
        comptime for t in range(tm):
            y.unsafe_store(r * stride + t * LANES, rebind[Floats](sums[r * tm + t]))


@inline(.always)
def _multiply_groups[
    Rows: WeightRows, nr: Int, tm: Int, fold: Bool
](
    words: WordPointer,
    scales: WordPointer,
    x: WordPointer,
    chunks: Int,
    stride: Int,
    y: FloatPointer,
):
    """Adds some chunks' products of nr weight rows and tm registers of tokens to y, a group of a scale at a time.
    """
    comptime groups = groups_per_chunk[Rows]()
    var sums = Array[Floats, nr * tm](fill=Floats(0))
    comptime for r in range(nr):
        comptime for t in range(tm):
            sums[r * tm + t] = y.unsafe_load[width=LANES](r * stride + t * LANES)
    for chunk in range(chunks):
        var chunk_words = words.unsafe_offset(chunk * words_per_chunk[Rows]())
        var chunk_x = x.unsafe_offset(row_words[Rows](chunk) * stride)
        for g in range(groups):
            var first = g * Rows.group_lanes
            var products = Array[Sums[Rows.word], nr * tm](fill=Sums[Rows.word](0))
            comptime if Rows.word == DType.int8:
                var starts = Array[Words, tm](fill=Words(0))
                comptime if Rows.zero_point:
                    starts = _load_tokens[tm](
                        chunk_x.unsafe_offset((words_per_chunk[Rows]() + first) * stride)
                    )
                comptime for r in range(nr):
                    comptime for t in range(tm):
                        var start = starts[t]
                        comptime if fold:
                            start += Words(
                                scales[
                                    unsafe_offset=r * _scales_per_step[Rows]() + chunk * groups + g
                                ]
                            )
                        products[r * tm + t] = rebind[Sums[Rows.word]](
                            bitcast[DType.int32, LANES](start)
                        )
            var pairs = Array[PairSums, nr * tm](fill=PairSums(0))
            comptime for v in range(Rows.vectors):
                comptime for i in range(Rows.group_lanes):
                    comptime at = v * Rows.group_lanes + i
                    var word = v * LANES + first + i
                    var tokens = _load_tokens[tm](chunk_x.unsafe_offset(word * stride))
                    comptime for r in range(nr):
                        var weight = Words(
                            chunk_words[unsafe_offset=r * _words_per_step[Rows]() + word]
                        )
                        comptime for t in range(tm):
                            comptime s = r * tm + t
                            products[s] = multiply_add_of_group[
                                Rows.word, Rows.zero_point, at, Rows.vectors * Rows.group_lanes
                            ](products[s], pairs[s], weight, tokens[t])
            var factors = Array[Floats, tm](fill=Floats(1))
            comptime if Rows.word == DType.int8:
                var x_scales = _load_tokens[tm](
                    chunk_x.unsafe_offset((x_scales_word[Rows]() + first) * stride)
                )
                comptime for t in range(tm):
                    factors[t] = bitcast[DType.float32, LANES](x_scales[t])
            comptime for r in range(nr):
                var bits = scales[unsafe_offset=r * _scales_per_step[Rows]() + chunk * groups + g]
                var scale = Floats(bitcast[DType.float32](bits))
                comptime for t in range(tm):
                    comptime s = r * tm + t
                    comptime if fold:
                        var total = bitcast[DType.float32, LANES](products[s]) - scale
                        sums[s] = total.fma(factors[t], sums[s])
                    else:
                        var total = products[s].cast[DType.float32]()
                        comptime if Rows.word == DType.int8:
                            total *= factors[t]
                        sums[s] = total.fma(scale, sums[s])
    comptime for r in range(nr):
        comptime for t in range(tm):
            y.unsafe_store(r * stride + t * LANES, sums[r * tm + t])


@inline(.always)
def _decode_chunk[
    Rows: WeightRows, fold: Bool, tail: Bool
](weights: Rows, row: Int, chunk: Int, row_scales: WordPointer, words: WordPointer):
    var packed = weights.load[tail](row, chunk)
    var scale = lane_scales[Rows](row_scales, chunk)
    comptime for v in range(Rows.vectors):
        words.unsafe_store(v * LANES, weights.decode[v, fold](packed, scale))


@inline(.always)
def _decode_rows[
    Rows: WeightRows, fold: Bool
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    first_chunk: Int,
    chunks: Int,
    full_chunks: Int,
    row_scales: WordPointer,
    scales_stride: Int,
    words: WordPointer,
    scales: WordPointer,
):
    """Decodes some chunks of _ROWS rows; past `rows` the last one again, whose results nobody reads.
    """
    comptime groups = groups_per_chunk[Rows]()
    comptime for r in range(_ROWS):
        var n = min(r, rows - 1)
        var row = first_row + n
        var read = row_scales.unsafe_offset(n * scales_stride)
        for i in range(chunks):
            var chunk = first_chunk + i
            # The next call's rows: walked chunk by chunk, they are no stream that the hardware would see coming.
            weights.prefetch_chunk(row + TILE_N, chunk)
            var target = words.unsafe_offset(
                r * _words_per_step[Rows]() + i * words_per_chunk[Rows]()
            )
            if chunk < full_chunks:
                _decode_chunk[Rows, fold, False](weights, row, chunk, read, target)
            else:
                _decode_chunk[Rows, fold, True](weights, row, chunk, read, target)
        comptime if _goes_by_groups[Rows, fold]():
            for i in range(chunks):
                scales.unsafe_store[alignment=4](
                    r * _scales_per_step[Rows]() + i * groups,
                    read.unsafe_load[width=groups, alignment=4]((first_chunk + i) * groups),
                )


def tile[
    Rows: WeightRows
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    stride: Int,
    scales: WordPointer,
    y: FloatPointer,
):
    """Multiplies `rows` weight rows by `stride` rows of activations.

    Parameters:
        Rows: The weights' format.

    Args:
        weights: All weight rows.
        first_row: The first to multiply.
        rows: How many, at most TILE_N.
        k: Elements in a row.
        x: [row_words, stride] packed words, a multiple of LANES tokens.
        stride: Tokens, counting padding.
        scales: Scratch, [TILE_N, scales_per_row].
        y: [TILE_N, stride] float32; lines up to the next multiple of 8 above `rows` are written.
    """
    comptime if Rows.folds:
        if weights.fits_folding(first_row, rows):
            _tile_all[Rows, True](weights, first_row, rows, k, x, stride, scales, y)
            return
    _tile_all[Rows, False](weights, first_row, rows, k, x, stride, scales, y)


def _tile_all[
    Rows: WeightRows, fold: Bool
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    stride: Int,
    scales: WordPointer,
    y: FloatPointer,
):
    comptime by_groups = _goes_by_groups[Rows, fold]()
    comptime step = _chunks_per_step[Rows]()
    var words_buffer = Array[Words, _ROWS * step * Rows.vectors](fill=Words(0))
    var scales_buffer = Array[Words, _ROWS * step](fill=Words(0))
    var words = (
        words_buffer.unsafe_ptr().unsafe_bitcast[UInt32]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var step_scales = (
        scales_buffer.unsafe_ptr().unsafe_bitcast[UInt32]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var token_registers = stride // LANES
    var chunks = ceildiv(k, chunk_k[Rows]())
    var scales_stride = scales_per_row[Rows](chunks)
    for n in range(rows):
        weights.read_scales[fold](
            first_row + n,
            0,
            chunks * groups_per_chunk[Rows](),
            scales.unsafe_offset(n * scales_stride),
        )
    for i in range(ceildiv(rows, _ROWS) * _ROWS * token_registers):
        y.unsafe_store(i * LANES, Floats(0))
    for chunk in range(0, chunks, step):
        var count = min(step, chunks - chunk)
        var x_chunk = x.unsafe_offset(row_words[Rows](chunk) * stride)
        for n in range(0, rows, _ROWS):
            _decode_rows[Rows, fold](
                weights,
                first_row + n,
                rows - n,
                chunk,
                count,
                k // chunk_k[Rows](),
                scales.unsafe_offset(n * scales_stride),
                scales_stride,
                words,
                step_scales,
            )
            var y_rows = y.unsafe_offset(n * stride)
            var t = 0
            while t < token_registers:
                # Equal parts of at most TM registers: 4 go as 2 + 2, for each sum's additions wait for one another.
                var parts = ceildiv(token_registers - t, _TM)
                var tm = ceildiv(token_registers - t, parts)
                var x_part = x_chunk.unsafe_offset(t * LANES)
                var y_part = y_rows.unsafe_offset(t * LANES)
                comptime for width in range(1, _TM + 1):
                    if tm == width:
                        comptime if by_groups:
                            comptime for r in range(0, _ROWS, _SCALED_ROWS):
                                _multiply_groups[Rows, _SCALED_ROWS, width, fold](
                                    words.unsafe_offset(r * _words_per_step[Rows]()),
                                    step_scales.unsafe_offset(r * _scales_per_step[Rows]()),
                                    x_part,
                                    count,
                                    stride,
                                    y_part.unsafe_offset(r * stride),
                                )
                        else:
                            _multiply_words[Rows, _ROWS, width](
                                words, x_part, count, stride, y_part
                            )
                t += tm
    _ = words_buffer^
    _ = scales_buffer^
