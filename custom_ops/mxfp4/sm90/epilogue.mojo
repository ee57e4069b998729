"""The epilogue: adds the bias to a lane's sums, applies SwiGLU in the experts' first matmul, and stores the output."""

from ..layouts.fragments import d_column, d_lower, fragment_row
from ..layouts.sm90_tiles import TILE_ROWS, source_row
from ..pointers import ConstPointer
from ..swiglu import swiglu
from .ptx import multiply_wide, prefetch, store_if
from .schedule import Work

comptime Bf16Pointer = MutPointer[BFloat16, MutUntrackedOrigin]
"""A pointer into the output tensor."""


struct Output[gated: Bool](TrivialRegisterPassable):
    """The output tensor and what is applied before it is stored.

    A lane has two adjacent weight rows of a tile, the first of which is even, so two values for them share one word.

    Parameters:
        gated: Whether rows alternate between gate and up, and SwiGLU turns two into one output.
    """

    var y: Bf16Pointer
    """Output, [P, n] or, gated, [P, n / 2]; 4-byte aligned."""
    var bias: ConstPointer[DType.bfloat16]
    """Bias, [experts, n]; 4-byte aligned."""
    var n: Int
    """Weight rows of an expert, an even number."""
    var limit: Float32
    """Clamp of SwiGLU; not read unless gated."""

    @inline(.always)
    def __init__(
        out self,
        y: Bf16Pointer,
        bias: ConstPointer[DType.bfloat16],
        n: Int,
        limit: Float32 = 0,
    ):
        """Describes the output.

        Args:
            y: [P, n] or, gated, [P, n / 2].
            bias: [experts, n].
            n: Weight rows of an expert.
            limit: Clamp of SwiGLU.
        """
        self.y = y
        self.bias = bias
        self.n = n
        self.limit = limit

    @inline(.always)
    def prefetch_bias(self, work: Work, row_tile: Int32, warp: Int):
        """Prefetches the bias of a warp's 16 rows, one sector of memory, into L2.

        Args:
            work: The output tile.
            row_tile: The tile of 64 weight rows.
            warp: The index of the warp in its warpgroup.
        """
        var row = min(Int(row_tile) * TILE_ROWS + 16 * warp, self.n - 1)
        prefetch(self.bias.unsafe_offset(Int(work.expert) * self.n + row))

    @inline(.always)
    def store[
        columns: Int
    ](
        self,
        sums: SIMD[DType.float32, columns // 2],
        bias_of_rows: SIMD[DType.bfloat16, 2],
        work: Work,
        row_tile: Int32,
        warp: Int,
        lane: Int,
    ):
        """Applies the epilogue to a lane's sums of one tile and stores the results.

        Parameters:
            columns: Rows of activations in the tile.

        Args:
            sums: The lane's registers of D.
            bias_of_rows: From `load_bias`.
            work: The output tile.
            row_tile: The tile of 64 weight rows.
            warp: The index of the warp in its warpgroup.
            lane: The lane.
        """
        comptime rows = 2 if Self.gated else 1
        var row = _row(row_tile, warp, lane)
        if row >= self.n:
            return
        # In bytes, an address takes one instruction, a wide multiply-add. Multiples of `row_bytes` by themselves would
        # be the same for all items, and ptxas would keep them in registers that it does not have.
        var row_bytes = UInt32(self.n // rows * 2)
        var y = self.y.unsafe_offset(row // rows).unsafe_bitcast[UInt8]()
        var bias = bias_of_rows.cast[DType.float32]()
        comptime for i in range(columns // 2):
            comptime if d_lower(i) == 0:
                var token = UInt32(work.first_row) + UInt32(d_column(lane, i))
                var at = y.unsafe_offset(multiply_wide(token, row_bytes)).unsafe_bitcast[BFloat16]()
                var both = SIMD[DType.float32, 2](sums[i], sums[i + 2]) + bias
                # Computed even for columns without a token: with branches, each output's exponential and reciprocal
                # would wait for those of the previous output.
                var take = token < UInt32(work.end_row)
                comptime if Self.gated:
                    var one = swiglu(both[0], both[1], self.limit)
                    store_if(at, one.cast[DType.bfloat16](), take)
                else:
                    store_if(at, both.cast[DType.bfloat16](), take)


@inline(.always)
def load_bias(
    bias: ConstPointer[DType.bfloat16], n: Int, work: Work, row_tile: Int32, warp: Int, lane: Int
) -> SIMD[DType.bfloat16, 2]:
    """Loads the bias of a lane's two rows of a tile.

    Args:
        bias: Bias, [experts, n]; 4-byte aligned.
        n: Weight rows of an expert, an even number.
        work: The output tile.
        row_tile: The tile of 64 weight rows.
        warp: The index of the warp in its warpgroup.
        lane: The lane.

    Returns:
        The bias; for rows past the expert's end, that of its last two rows.
    """
    var row = min(_row(row_tile, warp, lane), n - 2)
    return bias.unsafe_offset(Int(work.expert) * n + row).unsafe_load[width=2, alignment=4]()


@inline(.always)
def _row(row_tile: Int32, warp: Int, lane: Int) -> Int:
    """Returns the first of a lane's two weight rows of a tile."""
    return Int(row_tile) * TILE_ROWS + source_row(fragment_row(warp, lane, 0))
