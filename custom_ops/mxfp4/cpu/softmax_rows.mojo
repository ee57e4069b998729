"""Weighted sums of values under a softmax whose scores come a tile at a time.

    largest = -inf, total = 0, sums = 0
    for each tile: largest' = max(largest, scores); weights = 2^(scores - largest')
        total = total * 2^(largest - largest') + sum(weights);  sums likewise, + weights . values
    out = sums / total

Scores are logits times log2(e), so that powers of two take the place of exponentials.
"""

from std.utils.numerics import neg_inf

from .cache_tile import TILE_KEYS, TILE_VECTORS
from .dot import FloatPointer
from .exp2 import exp2_negative
from .weights import LANE_INDEX
from .words import LANES, Floats

comptime Scores = Array[Floats, TILE_VECTORS]
"""A row's scores of a tile of keys."""


@fieldwise_init
struct SoftmaxRows(TrivialRegisterPassable):
    """Rows in progress; each has seen its own keys so far."""

    var sums: FloatPointer
    """[rows, head_dim]."""
    var totals: FloatPointer
    """[rows, LANES], to be added up."""
    var largest: FloatPointer
    """[rows]."""
    var head_dim: Int
    """Elements of a value, a multiple of LANES."""

    @staticmethod
    def size(rows: Int, head_dim: Int) -> Int:
        """Gives the floats that rows take.

        Args:
            rows: How many.
            head_dim: Elements of a value.

        Returns:
            Floats.
        """
        return rows * (head_dim + LANES + 1)

    @staticmethod
    def at(floats: FloatPointer, rows: Int, head_dim: Int) -> Self:
        """Lays rows out in a buffer.

        Args:
            floats: [size(rows, head_dim)], aligned to a register.
            rows: How many.
            head_dim: Elements of a value.

        Returns:
            The rows, not begun.
        """
        var totals = floats.unsafe_offset(rows * head_dim)
        return Self(floats, totals, totals.unsafe_offset(rows * LANES), head_dim)

    def begin(self, row: Int):
        """Lets a row have no keys.

        Args:
            row: The row.
        """
        for d in range(0, self.head_dim, LANES):
            self.sums.unsafe_store(row * self.head_dim + d, Floats(0))
        self.totals.unsafe_store(row * LANES, Floats(0))
        self.largest[unsafe_offset=row] = neg_inf[DType.float32]()

    def add_score(self, row: Int, score: Float32):
        """Adds a score without a value to a row that has no keys.

        Args:
            row: The row.
            score: The score, finite.
        """
        var totals = Floats(0)
        totals[0] = 1
        self.totals.unsafe_store(row * LANES, totals)
        self.largest[unsafe_offset=row] = score

    @inline(.always)
    def weigh(self, row: Int, mut scores: Scores, low: Int, high: Int) -> Float32:
        """Turns a tile's scores into weights, and adds those to the row's total.

        Args:
            row: The row.
            scores: The scores, and then weights: 0 but for keys low..high-1.
            low: The first key that the row sees.
            high: Past the last one.

        Returns:
            What the row's sums have to be multiplied by.
        """
        if low > 0 or high < TILE_KEYS:
            comptime for v in range(TILE_VECTORS):
                var key = LANE_INDEX + Int32(v * LANES)
                var seen = key.ge(Int32(low)) & key.lt(Int32(high))
                scores[v] = seen.select(scores[v], Floats(neg_inf[DType.float32]()))
        var tops = scores[0]
        comptime for v in range(1, TILE_VECTORS):
            tops = max(tops, scores[v])
        var before = self.largest[unsafe_offset=row]
        var top = max(before, tops.reduce_max())
        var shrink = exp2_negative(before - top)
        var totals = self.totals.unsafe_load[width=LANES](row * LANES) * shrink
        comptime for v in range(TILE_VECTORS):
            scores[v] = exp2_negative(scores[v] - top)
            totals += scores[v]
        self.largest[unsafe_offset=row] = top
        self.totals.unsafe_store(row * LANES, totals)
        return shrink

    def join(self, row: Int, other: Int):
        """Adds another row's keys to a row.

        Args:
            row: The row.
            other: The other one, of the same query in the same head.
        """
        var first = self.largest[unsafe_offset=row]
        var second = self.largest[unsafe_offset=other]
        var top = max(first, second)
        var shrinks = SIMD[DType.float32, 2](
            exp2_negative(first - top), exp2_negative(second - top)
        )
        self.largest[unsafe_offset=row] = top
        _add_scaled(
            self.totals.unsafe_offset(row * LANES),
            self.totals.unsafe_offset(other * LANES),
            LANES,
            shrinks,
        )
        _add_scaled(
            self.sums.unsafe_offset(row * self.head_dim),
            self.sums.unsafe_offset(other * self.head_dim),
            self.head_dim,
            shrinks,
        )

    def write(self, row: Int, target: FloatPointer):
        """Writes a row's outcome.

        Args:
            row: The row, with a key at least.
            target: [head_dim] float32.
        """
        var share = 1 / self.totals.unsafe_load[width=LANES](row * LANES).reduce_add()
        for d in range(0, self.head_dim, LANES):
            var sums = self.sums.unsafe_load[width=LANES](row * self.head_dim + d)
            target.unsafe_store[alignment=4](d, sums * share)


def _add_scaled(
    first: FloatPointer, second: FloatPointer, count: Int, factors: SIMD[DType.float32, 2]
):
    """Computes `first = first * factors[0] + second * factors[1]`."""
    for i in range(0, count, LANES):
        var scaled = second.unsafe_load[width=LANES](i) * factors[1]
        first.unsafe_store(i, first.unsafe_load[width=LANES](i).fma(factors[0], scaled))
