"""Weight rows times many rows of activations, activations in the lanes, weights broadcast one word at a time.

    for chunk: for NR weight rows: decode the chunk to a small buffer
        for TM * LANES tokens: for each group of the chunk:
            products = sum over the group's words of broadcast(word) * x[word, tokens]
            y[row, tokens] += scale(row, group) * products

Limited by arithmetic: NR * TM sums and as many products stay in registers, a chunk of x in L1. Scales multiply sums,
not weights, so that each of the 256 scale bytes is exact.
"""

from std.math import ceildiv

from .dot import TILE_N, FloatPointer
from .pack import WordPointer
from .weights import WeightRows, chunk_k, chunk_words
from .words import LANES, Floats, Words, multiply_add

comptime _NR = 4
"""Weight rows in the register tile."""

comptime _TM = 3
"""Registers of tokens in the register tile: 2 * 4 * 3 sums and products, 3 loads, 1 broadcast of 32 registers."""

comptime _LANES_PER_GROUP = 4
"""Lanes of a decoded register that hold one MXFP4 group (see `WeightRows`)."""

comptime _GROUPS = LANES // _LANES_PER_GROUP
"""Groups in a chunk."""


@inline(.always)
def _multiply_chunk[
    Rows: WeightRows, tm: Int
](words: WordPointer, scales: FloatPointer, x: WordPointer, stride: Int, y: FloatPointer,):
    """Adds one chunk's products of NR weight rows and tm registers of tokens to y."""
    var sums = Array[Floats, _NR * tm](fill=Floats(0))
    comptime for r in range(_NR):
        comptime for t in range(tm):
            sums[r * tm + t] = y.unsafe_load[width=LANES](r * stride + t * LANES)
    for g in range(_GROUPS):
        var products = Array[Floats, _NR * tm](fill=Floats(0))
        comptime for v in range(Rows.vectors):
            comptime for i in range(_LANES_PER_GROUP):
                var word = v * LANES + g * _LANES_PER_GROUP + i
                var tokens = Array[Words, tm](fill=Words(0))
                comptime for t in range(tm):
                    tokens[t] = x.unsafe_load[width=LANES](word * stride + t * LANES)
                comptime for r in range(_NR):
                    var weight = Words(words[unsafe_offset=r * chunk_words[Rows]() + word])
                    comptime for t in range(tm):
                        products[r * tm + t] = multiply_add[Rows.word](
                            products[r * tm + t], weight, tokens[t]
                        )
        comptime for r in range(_NR):
            comptime for t in range(tm):
                comptime if Rows.scaled:
                    var scale = Floats(scales[unsafe_offset=r * LANES + g * _LANES_PER_GROUP])
                    sums[r * tm + t] = products[r * tm + t].fma(scale, sums[r * tm + t])
                else:
                    sums[r * tm + t] += products[r * tm + t]
    comptime for r in range(_NR):
        comptime for t in range(tm):
            y.unsafe_store(r * stride + t * LANES, sums[r * tm + t])


@inline(.always)
def _decode_rows[
    Rows: WeightRows, tail: Bool
](weights: Rows, first_row: Int, rows: Int, chunk: Int, words: WordPointer, scales: FloatPointer,):
    """Decodes a chunk of NR rows; past `rows` the last one again, whose results nobody reads."""
    comptime for r in range(_NR):
        var row = first_row + min(r, rows - 1)
        # The next call's rows: walked chunk by chunk, they are no stream that the hardware would see coming.
        weights.prefetch_chunk(row + TILE_N, chunk)
        var decoded = weights.decode[tail](row, chunk)
        comptime for v in range(Rows.vectors):
            words.unsafe_store(r * chunk_words[Rows]() + v * LANES, decoded[v])
        scales.unsafe_store(r * LANES, weights.scale[tail](row, chunk))


def tile[
    Rows: WeightRows
](weights: Rows, first_row: Int, rows: Int, k: Int, x: WordPointer, stride: Int, y: FloatPointer,):
    """Multiplies `rows` weight rows by `stride` rows of activations.

    Parameters:
        Rows: The weights' format.

    Args:
        weights: All weight rows.
        first_row: The first to multiply.
        rows: How many, at most TILE_N.
        k: Elements in a row.
        x: [chunks * chunk_words, stride] packed words, a multiple of LANES tokens.
        stride: Tokens, counting padding.
        y: [TILE_N, stride] float32; lines up to the next multiple of 4 above `rows` are written.
    """
    var words_buffer = Array[Words, _NR * Rows.vectors](fill=Words(0))
    var scales_buffer = Array[Floats, _NR](fill=Floats(0))
    var words = (
        words_buffer.unsafe_ptr().unsafe_bitcast[UInt32]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var scales = (
        scales_buffer.unsafe_ptr()
        .unsafe_bitcast[Float32]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var token_registers = stride // LANES
    for i in range(rows.__ceildiv__(_NR) * _NR * token_registers):
        y.unsafe_store(i * LANES, Floats(0))
    for chunk in range(ceildiv(k, chunk_k[Rows]())):
        var x_chunk = x.unsafe_offset(chunk * chunk_words[Rows]() * stride)
        var is_tail = (chunk + 1) * chunk_k[Rows]() > k
        for n in range(0, rows, _NR):
            if is_tail:
                _decode_rows[Rows, True](weights, first_row + n, rows - n, chunk, words, scales)
            else:
                _decode_rows[Rows, False](weights, first_row + n, rows - n, chunk, words, scales)
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
                        _multiply_chunk[Rows, width](words, scales, x_part, stride, y_part)
                t += tm
    _ = words_buffer^
    _ = scales_buffer^
