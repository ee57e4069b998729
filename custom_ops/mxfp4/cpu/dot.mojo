"""Dot products of weight rows with a few rows of activations: each weight is decoded once for all of them.

    for row: for chunk: words = decode(row, chunk)
        for m: sums[m] += scale(chunk) * (words . x[m, chunk])

Limited by reading the weights, so rows go strictly in order and memory is asked for ahead of use.
"""

from .pack import WordPointer
from .weights import WeightRows, chunk_k, chunk_words
from .words import LANES, Floats, multiply_add

comptime FloatPointer = MutPointer[Float32, MutUntrackedOrigin]
"""Sums in a buffer of the op's own."""

comptime TILE_N = 32
"""Weight rows, that is outputs, that a kernel call produces."""

comptime DOT_ROWS = 4
"""Most rows of activations that one pass over the weights multiplies; their words stay in L1."""


@inline(.always)
def _add_chunk[
    Rows: WeightRows, m: Int, tail: Bool
](weights: Rows, row: Int, chunk: Int, x: WordPointer, row_words: Int, mut sums: Array[Floats, m],):
    weights.prefetch_ahead(row, chunk)
    var words = weights.decode[tail](row, chunk)
    var scale = weights.scale[tail](row, chunk)
    comptime for i in range(m):
        var source = x.unsafe_offset(i * row_words + chunk * chunk_words[Rows]())
        var products = Floats(0)
        comptime for v in range(Rows.vectors):
            products = multiply_add[Rows.word](
                products, words[v], source.unsafe_load[width=LANES](v * LANES)
            )
        comptime if Rows.scaled:
            sums[i] = products.fma(scale, sums[i])
        else:
            sums[i] += products


def dot[
    Rows: WeightRows, m: Int
](weights: Rows, first_row: Int, rows: Int, k: Int, x: WordPointer, y: FloatPointer,):
    """Multiplies `rows` weight rows by m rows of activations.

    Parameters:
        Rows: The weights' format.
        m: Rows of activations, 1 to DOT_ROWS.

    Args:
        weights: All weight rows.
        first_row: The first to multiply.
        rows: How many, at most TILE_N.
        k: Elements in a row.
        x: [m, chunks * chunk_words] packed words.
        y: [m, TILE_N] float32, of which the first `rows` columns are written.
    """
    comptime size = chunk_k[Rows]()
    var full_chunks = k // size
    var has_tail = k % size != 0
    var row_words = (full_chunks + Int(has_tail)) * chunk_words[Rows]()
    for n in range(rows):
        var sums = Array[Floats, m](fill=Floats(0))
        for chunk in range(full_chunks):
            _add_chunk[Rows, m, False](weights, first_row + n, chunk, x, row_words, sums)
        if has_tail:
            _add_chunk[Rows, m, True](weights, first_row + n, full_chunks, x, row_words, sums)
        comptime for i in range(m):
            y[unsafe_offset=i * TILE_N + n] = sums[i].reduce_add()
