"""Dot products of weight rows with a few rows of activations: each weight is decoded once for all of them.

    for row: for chunk: words = decode(row, chunk)
        for m: sums[m] += scale(chunk) * (words . x[m, chunk])

With one row or two that is limited by reading weights, so rows go strictly in order and memory is asked for ahead of use.
With more, arithmetic counts: scales are folded into words where they fit, and pairs of weight rows share activations.
"""

from std.memory import bitcast

from .pack import row_words, word_offset
from .weights import (
    WeightRows,
    WordPointer,
    chunk_k,
    groups_per_chunk,
    lane_scales,
)
from .words import LANES, Floats, Sums, Words, multiply_add

comptime FloatPointer = MutPointer[Float32, MutUntrackedOrigin]
"""Sums in a buffer of the op's own."""

comptime TILE_N = 32
"""Weight rows, that is outputs, that a kernel call produces."""

comptime DOT_ROWS = 8
"""Most rows of activations that one pass over the weights multiplies."""

comptime _FOLD_ROWS = 4
"""Fewest rows of activations for which folding scales into words is less work than multiplying sums by them."""


@inline(.always)
def _add_chunk[
    Rows: WeightRows, m: Int, pair: Int, fold: Bool, tail: Bool
](
    weights: Rows,
    row: Int,
    chunk: Int,
    x: WordPointer,
    x_stride: Int,
    scales: WordPointer,
    scales_stride: Int,
    mut sums: Array[Floats, pair * m],
):
    """Adds one chunk of `pair` weight rows, times m rows of activations, to sums[r * m + i]."""
    comptime scale_sums = Rows.group_lanes > 0 and not fold
    # Few sums: separate products, for each sum's additions wait for one another.
    comptime direct = not scale_sums and pair * m >= 4
    var packed = Array[Words, pair](fill=Words(0))
    var scale = Array[Words, pair](fill=Words(0))
    comptime for r in range(pair):
        # Counted from the pair's last row: what lies between the two is under way already.
        weights.prefetch_ahead(row + r + pair - 1, chunk)
        packed[r] = weights.load[tail](row + r, chunk)
        scale[r] = lane_scales[Rows](scales.unsafe_offset(r * scales_stride), chunk)
    var products = Array[Sums[Rows.word], pair * m](fill=Sums[Rows.word](0))
    var x_chunk = x.unsafe_offset(word_offset[Rows](chunk))
    comptime if Rows.word == DType.int8:
        comptime for i in range(m):
            var start = x_chunk.unsafe_offset(i * x_stride).unsafe_load[width=LANES](
                Rows.vectors * LANES
            )
            comptime for r in range(pair):
                products[r * m + i] = rebind[Sums[Rows.word]](bitcast[DType.int32, LANES](start))
    comptime for v in range(Rows.vectors):
        var words = Array[Words, pair](fill=Words(0))
        comptime for r in range(pair):
            words[r] = weights.decode[v, fold](packed[r], scale[r])
        comptime for i in range(m):
            var source = x_chunk.unsafe_offset(i * x_stride).unsafe_load[width=LANES](v * LANES)
            comptime for r in range(pair):
                comptime s = r * m + i
                comptime if direct:
                    sums[s] = rebind[Floats](
                        multiply_add[Rows.word](rebind[Sums[Rows.word]](sums[s]), words[r], source)
                    )
                else:
                    products[s] = multiply_add[Rows.word](products[s], words[r], source)
    comptime if not direct:
        comptime for r in range(pair):
            comptime for i in range(m):
                var total = products[r * m + i].cast[DType.float32]()
                comptime if scale_sums:
                    # One after the other: their product may leave float32's range where the sum does not.
                    comptime if Rows.word == DType.int8:
                        total *= bitcast[DType.float32, LANES](
                            x_chunk.unsafe_offset(i * x_stride).unsafe_load[width=LANES](
                                (Rows.vectors + 1) * LANES
                            )
                        )
                    sums[r * m + i] = total.fma(
                        bitcast[DType.float32, LANES](scale[r]), sums[r * m + i]
                    )
                else:
                    sums[r * m + i] += total


@inline(.always)
def _dot_rows[
    Rows: WeightRows, m: Int, pair: Int, fold: Bool
](weights: Rows, row: Int, k: Int, x: WordPointer, scales: WordPointer, y: FloatPointer):
    """Multiplies `pair` weight rows by m rows of activations; output i of row r goes to y[i * TILE_N + r].
    """
    comptime size = chunk_k[Rows]()
    comptime unroll = max(1, 4 // Rows.vectors)
    var full_chunks = k // size
    var has_tail = k % size != 0
    var chunks = full_chunks + Int(has_tail)
    var x_stride = row_words[Rows](chunks)
    var scales_stride = scales_per_row[Rows](chunks)
    comptime for r in range(pair):
        weights.read_scales[fold](row + r, scales.unsafe_offset(r * scales_stride))
    var sums = Array[Floats, pair * m](fill=Floats(0))
    for i in range(full_chunks // unroll):
        comptime for u in range(unroll):
            _add_chunk[Rows, m, pair, fold, False](
                weights, row, i * unroll + u, x, x_stride, scales, scales_stride, sums
            )
    for chunk in range(full_chunks // unroll * unroll, full_chunks):
        _add_chunk[Rows, m, pair, fold, False](
            weights, row, chunk, x, x_stride, scales, scales_stride, sums
        )
    if has_tail:
        _add_chunk[Rows, m, pair, fold, True](
            weights, row, full_chunks, x, x_stride, scales, scales_stride, sums
        )
    comptime for r in range(pair):
        comptime for i in range(m):
            y[unsafe_offset=i * TILE_N + r] = sums[r * m + i].reduce_add()


def scales_per_row[Rows: WeightRows](chunks: Int) -> Int:
    """Gives the words that a row's scales take, room for whole registers included.

    Parameters:
        Rows: The weights' format.

    Args:
        chunks: Chunks in a row.

    Returns:
        Words.
    """
    return chunks * groups_per_chunk[Rows]() + LANES


def dot[
    Rows: WeightRows, m: Int
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    scales: WordPointer,
    y: FloatPointer,
):
    """Multiplies `rows` weight rows by m rows of activations.

    Parameters:
        Rows: The weights' format.
        m: Rows of activations, 1 to DOT_ROWS.

    Args:
        weights: All weight rows.
        first_row: The first to multiply.
        rows: How many, at most TILE_N.
        k: Elements in a row.
        x: [m, row_words] packed words.
        scales: Scratch, [2, scales_per_row].
        y: [m, TILE_N] float32, of which the first `rows` columns are written.
    """
    comptime if m >= _FOLD_ROWS:
        comptime if Rows.folds:
            if weights.fits_folding(first_row, rows):
                _dot_all[Rows, m, True](weights, first_row, rows, k, x, scales, y)
                return
    _dot_all[Rows, m, False](weights, first_row, rows, k, x, scales, y)


def _dot_all[
    Rows: WeightRows, m: Int, fold: Bool
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    scales: WordPointer,
    y: FloatPointer,
):
    comptime pair = 2 if m >= _FOLD_ROWS and LANES == 16 else 1
    var whole = rows // pair * pair
    for n in range(0, whole, pair):
        _dot_rows[Rows, m, pair, fold](weights, first_row + n, k, x, scales, y.unsafe_offset(n))
    for n in range(whole, rows):
        _dot_rows[Rows, m, 1, fold](weights, first_row + n, k, x, scales, y.unsafe_offset(n))
