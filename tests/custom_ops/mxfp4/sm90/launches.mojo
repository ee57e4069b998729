"""Launches what its arguments say on a GPU, or on a driver that runs no kernels.

    both TOKENS TOP_K EXPERTS HIDDEN INNER
    dense TOKENS OUTPUTS K
"""

from std.sys import argv

from max.gpu.host import DeviceContext

from mxfp4.activations import Activations
from mxfp4.sm90.dense import enqueue_dense
from mxfp4.sm90.epilogue import Output
from mxfp4.sm90.grouped_mlp import Counts
from mxfp4.sm90.launch import enqueue_grouped_mlp


def main() raises:
    var words = argv()
    var ctx = DeviceContext()
    var memory = ctx.enqueue_create_buffer[DType.uint8](1 << 20)
    var at = memory.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()
    var bytes = at.as_imm()
    var numbers = bytes.unsafe_bitcast[Int32]()
    var halves = bytes.unsafe_bitcast[BFloat16]()
    if words[1] == "dense":
        enqueue_dense(
            ctx,
            at.unsafe_bitcast[Float32](),
            halves,
            halves,
            halves,
            Int(words[2]),
            Int(words[3]),
            Int(words[4]),
        )
        ctx.synchronize()
        return
    var tokens, top_k, experts = Int(words[2]), Int(words[3]), Int(words[4])
    var hidden, inner = Int(words[5]), Int(words[6])
    enqueue_grouped_mlp(
        ctx,
        Output[gated=False](at.unsafe_bitcast[BFloat16](), halves, hidden),
        Output[gated=True](at.unsafe_bitcast[BFloat16](), halves, 2 * inner, 7),
        rebind[Counts](at.unsafe_bitcast[Int32]()),
        Activations(halves, numbers, tokens * top_k, hidden, top_k),
        bytes,
        bytes,
        numbers,
        experts,
    )
    ctx.synchronize()
