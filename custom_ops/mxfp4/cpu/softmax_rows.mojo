"""Online softmax: sums of values weighted by exponentials of scores, which come a tile at a time.

    row_max = -inf, total = 0, sums = 0
    for each tile: new_max = max(row_max, scores), rescale = 2^(row_max - new_max), exps = 2^(scores - new_max)
        total = total * rescale + sum(exps), sums = sums * rescale + exps . values, row_max = new_max
    out = sums / total

Scores are logits times log2(e), so that powers of two are exponentials.
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
    """Rows in progress, each of a query in a head."""

    var sums: FloatPointer
    """[rows, head_dim + LANES]: sums of values, and in the last register the total, to be added up."""
    var row_max: FloatPointer
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
            floats: [size(rows, head_dim)].
            rows: How many.
            head_dim: Elements of a value.

        Returns:
            The rows, not begun.
        """
        return Self(floats, floats.unsafe_offset(rows * (head_dim + LANES)), head_dim)

    def begin(self, row: Int):
        """Lets a row have no keys.

        Args:
            row: The row.
        """
        for d in range(0, self.stride(), LANES):
            self.sums.unsafe_store(row * self.stride() + d, Floats(0))
        self.row_max[unsafe_offset=row] = neg_inf[DType.float32]()

    def add_sink(self, row: Int, score: Float32):
        """Gives a row without keys a score that has no value.

        Args:
            row: The row.
            score: The score, finite.
        """
        self.sums[unsafe_offset=row * self.stride() + self.head_dim] = 1
        self.row_max[unsafe_offset=row] = score

    @inline(.always)
    def stride(self) -> Int:
        """Gives the floats from one row's sums to the next one's.

        Returns:
            Floats.
        """
        return self.head_dim + LANES

    @inline(.always)
    def update(self, row: Int, mut scores: Scores, low: Int, high: Int) -> Float32:
        """Turns a tile's scores into exponentials, and adds those to the row's total.

        Args:
            row: The row.
            scores: The scores, and then exponentials: 0 but for keys low..high-1.
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
        var largest = scores[0]
        comptime for v in range(1, TILE_VECTORS):
            largest = max(largest, scores[v])
        var old_max = self.row_max[unsafe_offset=row]
        var new_max = max(old_max, largest.reduce_max())
        var rescale = exp2_negative(old_max - new_max)
        var at = row * self.stride() + self.head_dim
        var total = self.sums.unsafe_load[width=LANES](at) * rescale
        comptime for v in range(TILE_VECTORS):
            scores[v] = exp2_negative(scores[v] - new_max)
            total += scores[v]
        self.row_max[unsafe_offset=row] = new_max
        self.sums.unsafe_store(at, total)
        return rescale

    def join(self, row: Int, other: Int):
        """Adds another row's keys to a row's.

        Args:
            row: The row.
            other: The other one, of the same query in the same head.
        """
        var max_here = self.row_max[unsafe_offset=row]
        var max_there = self.row_max[unsafe_offset=other]
        var new_max = max(max_here, max_there)
        var rescale_here = exp2_negative(max_here - new_max)
        var rescale_there = exp2_negative(max_there - new_max)
        var here = self.sums.unsafe_offset(row * self.stride())
        var there = self.sums.unsafe_offset(other * self.stride())
        for d in range(0, self.stride(), LANES):
            var scaled = there.unsafe_load[width=LANES](d) * rescale_there
            here.unsafe_store(d, here.unsafe_load[width=LANES](d).fma(rescale_here, scaled))
        self.row_max[unsafe_offset=row] = new_max

    def write(self, row: Int, target: FloatPointer):
        """Writes a row's outcome.

        Args:
            row: The row, with a key at least.
            target: [head_dim] float32.
        """
        var sums = self.sums.unsafe_offset(row * self.stride())
        var share = 1 / sums.unsafe_load[width=LANES](self.head_dim).reduce_add()
        for d in range(0, self.head_dim, LANES):
            target.unsafe_store(d, sums.unsafe_load[width=LANES](d) * share)
