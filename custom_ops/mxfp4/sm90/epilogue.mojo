"""What happens to a lane's sums on their way to the output: bias, and for the experts' first half SwiGLU."""

from ..layouts.fragments import d_column, d_lower, fragment_row
from ..layouts.sm90_tiles import TILE_ROWS, source_row
from ..pointers import ConstPointer
from ..swiglu import swiglu
from .schedule import Work

comptime Bf16Pointer = MutPointer[BFloat16, MutUntrackedOrigin]
"""The output tensor."""


@fieldwise_init
struct Output[gated: Bool](TrivialRegisterPassable):
    """The output tensor and what is applied before it.

    Parameters:
        gated: Whether rows are gates and ups, and SwiGLU makes one output of two.
    """

    var y: Bf16Pointer
    """Output, [P, n] or, gated, [P, n / 2]; 4-byte aligned."""
    var bias: ConstPointer[DType.bfloat16]
    """Bias, [experts, n]."""
    var n: Int
    """Weight rows of an expert."""
    var limit: Float32
    """Clamp of SwiGLU."""

    @inline(.always)
    def store[
        columns: Int
    ](
        self,
        sums: SIMD[DType.float32, columns // 2],
        work: Work,
        row_tile: Int,
        warp: Int,
        lane: Int,
    ):
        """Finishes and stores a lane's sums of one tile.

        Parameters:
            columns: Rows of activations in the tile.

        Args:
            sums: D's registers.
            work: The tile of outputs.
            row_tile: The tile of 64 weight rows.
            warp: The warp in its warpgroup.
            lane: The lane.
        """
        var first = row_tile * TILE_ROWS + source_row(fragment_row(warp, lane, 0))
        var lower = first + 1
        var bias = self.bias.unsafe_offset(Int(work.expert) * self.n)
        var has_first, has_lower = first < self.n, lower < self.n
        var first_bias = bias[unsafe_offset=first].cast[DType.float32]() if has_first else Float32(
            0
        )
        var lower_bias = bias[unsafe_offset=lower].cast[DType.float32]() if has_lower else Float32(
            0
        )
        # The first row is even: where n is too, both outputs are one aligned word.
        var one_word = has_lower and self.n % 2 == 0
        # Both factors of a row's place have 32 bits: one wide multiplication. With multiples of a row's outputs, added to
        # where the first row lies, ptxas spills registers: it keeps them from tile to tile.
        var outputs = UInt32(self.n // 2 if Self.gated else self.n)
        var first_output = self.y.unsafe_offset(first // 2 if Self.gated else first)
        comptime for i in range(columns // 2):
            comptime if d_lower(i) == 0:
                var row = UInt32(work.first_row) + UInt32(d_column(lane, i))
                if row < UInt32(work.end_row):
                    var y = first_output.unsafe_offset(Int(row) * Int(outputs))
                    var a = sums[i] + first_bias
                    var b = sums[i + 2] + lower_bias
                    comptime if Self.gated:
                        if has_lower:
                            y[] = swiglu(a, b, self.limit).cast[DType.bfloat16]()
                    else:
                        var both = SIMD[DType.float32, 2](a, b).cast[DType.bfloat16]()
                        if one_word:
                            y.unsafe_store[alignment=4](0, both)
                        else:
                            if has_first:
                                y[] = both[0]
                            if has_lower:
                                y[unsafe_offset=1] = both[1]
