"""Grouped matmul with MXFP4 weights on Hopper: `y[p, :] = x[row(p), :] @ W[e(p)].T` plus bias, then SwiGLU if gated.

It is computed transposed, D[weight rows, tokens] = W @ x.T, so that the weights are the operand in registers.

    one warp:       list the experts that have rows
    producer warps: for each work item, for each stage of k (loaders take turns where a stage has few lines):
                        wait until the slot is empty
                        weights: one bulk copy per row tile -> the slot's full barrier counts bytes
                        activations: 16-byte copies by each thread, gathered, swizzled -> one arrival per thread
    consumers:      for each work item, for each stage of k (warpgroups take turns where they split k):
                        wait until the slot is full
                        for each k tile, for each half (32 k, one scale group):
                            decode 2 words per row tile into fragments
                            2 mma for each 8 tokens (`mma.mojo`), or 2 wgmma (`wgmma.mojo`)
                        release the slot
                    where they split k, reduce the sums through shared memory, to one warpgroup per row tile
                    epilogue

Tiles with rows for at most half their width are multiplied as narrow ones; in prefill those come after all others.

| tensor | shape | dtype, layout |
|---|---|---|
| x | [T, K] | bfloat16, any order; `order` says which row |
| weights | Sm90Tiles | uint8 |
| bias | [E, N] | bfloat16 |
| offsets | [E + 1] | int32 |
| order | [P] | int32, the routed row at each place in expert order; token = order // top_k |
| y | [P, N] or [P, N / 2] | bfloat16 |
"""

from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, block_idx, grid_dim, thread_idx
from max.gpu.intrinsics import warpgroup_reg_alloc, warpgroup_reg_dealloc
from max.gpu.memory import AddressSpace, external_memory

from ..activations import Activations
from ..gpu.overlap import let_next_kernel_begin, wait_for_kernels_before
from ..layouts.sm90_tiles import Sm90Tiles
from ..pointers import ConstPointer
from .config import PRODUCER_REGISTERS, WARPGROUP, Sm90Config, check_config
from .epilogue import Bf16Pointer, Output, load_bias
from .loader import Rows, load, load_ahead
from .mma import add_up, multiply_mma
from .schedule import Schedule, list_experts
from .stages import Stages, Turns
from .wgmma import multiply_wgmma


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(config.threads())),
    `nvvm.minctasm`=SIMDLength(config.blocks),
)
def grouped_matmul_kernel[
    config: Sm90Config, gated: Bool
](
    y: Bf16Pointer,
    x: ConstPointer[DType.bfloat16],
    weights: ConstPointer[DType.uint8],
    bias: ConstPointer[DType.bfloat16],
    offsets: ConstPointer[DType.int32],
    order: ConstPointer[DType.int32],
    rows: Int32,
    experts: Int32,
    n: Int32,
    k: Int32,
    top_k: Int32,
    limit: Float32,
):
    """Works through items `block_idx.x`, `block_idx.x + grid_dim.x`, ... of the schedule.

    If launched to overlap the preceding kernel, a gated one waits for that kernel before it reads any global memory;
    one that is not gated reads `offsets`, `weights` and `bias` without waiting, and waits only before it reads x.

    Parameters:
        config: The tiling configuration.
        gated: Whether SwiGLU follows.

    Args:
        y: [P, N], or [P, N / 2] where gated.
        x: [T, K].
        weights: Packed, see `Sm90Tiles`.
        bias: [E, N].
        offsets: [E + 1].
        order: [P]; not read if `top_k` is 0.
        rows: P.
        experts: E.
        n: N.
        k: K, a multiple of 32.
        top_k: Routed rows per token, or 0 if the rows of x are in expert order.
        limit: SwiGLU's clamp.
    """
    check_config[config]()
    var stages = Stages[config](
        external_memory[UInt8, address_space=AddressSpace.SHARED, alignment=1024]()
    )
    var thread = Int(thread_idx.x)
    var group = thread // WARPGROUP
    var lane = thread % 32
    if thread == 32:
        stages.init_barriers()
    comptime if gated:
        # The preceding kernel writes the routing.
        wait_for_kernels_before()
        let_next_kernel_begin()
    if thread < 32:
        list_experts[config, waited=gated](
            stages.entries(), offsets, experts, rows, Int32(config.row_blocks(Int(n))), Int32(lane)
        )
    barrier()
    var tiles = Sm90Tiles(Int(n), Int(k))
    var schedule = Schedule[config](stages.entries(), n)
    var item = Int32(block_idx.x)
    if group == config.warpgroups:
        comptime if config.moves_registers():
            warpgroup_reg_dealloc[PRODUCER_REGISTERS]()
        var activations = Activations(x, order, Int(rows), Int(k), Int(top_k))
        var loader, in_loader = divmod(
            Int32(thread - WARPGROUP * config.warpgroups), Int32(config.loading_threads)
        )
        var turns = Turns[config.stages, config.loaders](loader)
        var begun = Int32(0)
        if schedule.has(item) and in_loader == 0:
            begun = load_ahead[first=True](
                stages, turns, Rows[config](weights, tiles, schedule.work(item))
            )
        comptime if not gated:
            # The preceding kernel writes x; the routing is older, as that kernel has waited for it.
            wait_for_kernels_before()
            let_next_kernel_begin()
        while schedule.has(item):
            var work = schedule.work(item)
            var of_item = Rows[config](weights, tiles, work)
            load(stages, turns, work, activations, of_item, begun, in_loader)
            begun = 0
            item += Int32(grid_dim.x)
    else:
        comptime if config.moves_registers():
            warpgroup_reg_alloc[config.consumer_registers()]()
        var output = Output[gated](y, bias, Int(n), limit)
        var sharer = Int32(group)
        var in_group = thread % WARPGROUP
        var warp = in_group // 32
        var turns = Turns[config.stages, config.sharers()](sharer if config.split_k else 0)
        var k_tiles = Int32(tiles.k_tiles())
        # The row tile that this warpgroup finishes.
        var of_group = min(sharer, Int32(config.row_tiles) - 1)
        while schedule.has(item):
            var coming = schedule.work(item)
            var bias_of_rows = SIMD[DType.bfloat16, 2](0)
            comptime if config.split_k:
                bias_of_rows = load_bias(
                    bias, Int(n), coming, coming.row_tile[config](of_group), warp, lane
                )
            else:  # no register is left to hold the bias
                output.prefetch_bias(coming, coming.row_tile[config](of_group), warp)

            @inline(.always)
            def multiply[tokens: Int]() {mut}:
                var sums: SIMD[DType.float32, tokens // 2]
                comptime if config.split_k:
                    var of_turns = multiply_mma[config, tokens](stages, turns, k_tiles, warp, lane)
                    sums = add_up[config, tokens](stages, of_turns, sharer, in_group)
                else:
                    sums = multiply_wgmma[config, tokens](
                        stages, turns, k_tiles, of_group, warp, lane
                    )
                if not config.split_k or sharer < Int32(config.row_tiles):
                    var work = schedule.work(item)
                    var row_tile = work.row_tile[config](of_group)
                    comptime if not config.split_k:
                        bias_of_rows = load_bias(output.bias, output.n, work, row_tile, warp, lane)
                    output.store[tokens](sums, bias_of_rows, work, row_tile, warp, lane)

            comptime narrow = config.narrow_tokens()
            comptime if narrow < config.tokens:
                if coming.rows() <= Int32(narrow):
                    multiply[narrow]()
                else:
                    multiply[config.tokens]()
            else:
                multiply[config.tokens]()
            item += Int32(grid_dim.x)
