"""Expert outputs summed back into token order, and added to what the layer came from."""

from ..pointers import ConstPointer
from ..cpu.words import LANES


def combine_token(
    y: ConstPointer[DType.float32],
    places: ConstPointer[DType.int32],
    weights: ConstPointer[DType.float32],
    residual: ConstPointer[DType.float32],
    top_k: Int,
    hidden: Int,
    result: MutPointer[Float32, MutUntrackedOrigin],
):
    """Writes `result = residual + sum_j weights[j] * y[places[j]]`, j upwards, the residual last: the order does not
    depend on the batch.

    Args:
        y: [P, hidden] float32, rows in expert order.
        places: [k] int32, the token's places in it.
        weights: [k] float32.
        residual: [hidden] float32.
        top_k: Experts per token, k.
        hidden: H.
        result: [hidden] float32.
    """

    @inline(.always)
    def summed[width: Int](h: Int) {imm} -> SIMD[DType.float32, width]:
        var total = SIMD[DType.float32, width](0)
        for j in range(top_k):
            var row = Int(places[unsafe_offset=j])
            var values = y.unsafe_load[width=width, alignment=4](row * hidden + h)
            total = values.fma(SIMD[DType.float32, width](weights[unsafe_offset=j]), total)
        return residual.unsafe_load[width=width, alignment=4](h) + total

    var whole = hidden // LANES * LANES
    for h in range(0, whole, LANES):
        result.unsafe_store[alignment=4](h, summed[LANES](h))
    for h in range(whole, hidden):
        result[unsafe_offset=h] = summed[1](h)[0]
