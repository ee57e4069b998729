"""What happens to a kernel's sums on their way to the output: bias, and for the experts' first half SwiGLU."""

from ..pointers import ConstPointer
from ..swiglu import swiglu
from .dot import TILE_N, FloatPointer


trait Epilogue(TrivialRegisterPassable):
    """Turns the sums of up to TILE_N consecutive outputs of one row into what the op returns."""

    def store(
        self,
        sums: FloatPointer,
        row: Int,
        expert: Int,
        first_n: Int,
        count: Int,
    ):
        """Finishes and stores one row's outputs `first_n .. first_n + count - 1`.

        Args:
            sums: [TILE_N] float32, of which the first `count` are valid.
            row: The output row.
            expert: The expert whose weights made it.
            first_n: The first weight row, even.
            count: Weight rows, even for SwiGLU.
        """
        ...


@inline(.always)
def _biased[
    has_bias: Bool
](
    sums: FloatPointer,
    bias: ConstPointer[DType.bfloat16],
    bias_off: Int,
    count: Int,
) -> SIMD[
    DType.float32, TILE_N
]:
    """Gives sums plus bias; lanes from `count` on are unspecified."""
    var values = sums.unsafe_load[width=TILE_N]()
    comptime if has_bias:
        if count == TILE_N:
            values += bias.unsafe_load[width=TILE_N, alignment=2](bias_off).cast[DType.float32]()
        else:
            for i in range(count):
                values[i] += bias[unsafe_offset=bias_off + i].cast[DType.float32]()
    return values


@inline(.always)
def _store_first[
    width: SIMDLength, //
](target: FloatPointer, values: SIMD[DType.float32, width], count: Int):
    if count == width:
        target.unsafe_store[alignment=4](0, values)
    else:
        for i in range(count):
            target[unsafe_offset=i] = values[i]


@fieldwise_init
struct BiasEpilogue[has_bias: Bool](Epilogue):
    """`y[row, n] = sum + bias[expert, n]`.

    Parameters:
        has_bias: Whether there is a bias; without one its pointer is not read.
    """

    var y: FloatPointer
    """Output, [rows, n]."""
    var bias: ConstPointer[DType.bfloat16]
    """Bias, [experts, n]."""
    var n: Int
    """Outputs of a row."""

    @inline(.always)
    def store(
        self,
        sums: FloatPointer,
        row: Int,
        expert: Int,
        first_n: Int,
        count: Int,
    ):
        """Adds the bias and stores.

        Args:
            sums: [TILE_N] float32.
            row: The output row.
            expert: The expert whose bias is added.
            first_n: The first output.
            count: Outputs.
        """
        var values = _biased[Self.has_bias](sums, self.bias, expert * self.n + first_n, count)
        _store_first(self.y.unsafe_offset(row * self.n + first_n), values, count)


@fieldwise_init
struct SwigluEpilogue(Epilogue):
    """`y[row, i] = (up + 1) * gate * sigmoid(1.702 * gate)` of biased and clamped, interleaved gate and up sums.
    """

    var y: FloatPointer
    """Output, [rows, n / 2]."""
    var bias: ConstPointer[DType.bfloat16]
    """Bias, [experts, n]."""
    var n: Int
    """Weight rows of an expert, gate and up interleaved."""
    var limit: Float32
    """Clamp: gate <= limit, |up| <= limit."""

    @inline(.always)
    def store(
        self,
        sums: FloatPointer,
        row: Int,
        expert: Int,
        first_n: Int,
        count: Int,
    ):
        """Adds the bias, clamps, gates and stores.

        Args:
            sums: [TILE_N] float32.
            row: The output row.
            expert: The expert whose bias is added.
            first_n: The first weight row, even.
            count: Weight rows, even.
        """
        var gate_up = _biased[True](
            sums, self.bias, expert * self.n + first_n, count
        ).deinterleave()
        var y = swiglu(gate_up[0], gate_up[1], self.limit)
        _store_first(self.y.unsafe_offset((row * self.n + first_n) // 2), y, count // 2)
