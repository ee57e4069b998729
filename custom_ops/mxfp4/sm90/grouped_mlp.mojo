"""Both matmuls of the experts in one kernel on Hopper, for few tokens: weights of the second matmul are loaded while
the first is still being multiplied, so that memory does not idle in between.

    h[p, :] = swiglu(x[token(p), :] @ gate_up[e(p)].T + bias), y[p, :] = h[p, :] @ down[e(p)].T + bias

Each block works through its items of the first matmul, then of the second, as `grouped_matmul_kernel` does. A warp that
has stored its rows of a tile of h increments the expert's counter (release); a producer that needs the expert's h waits
until the counter shows all tiles stored (acquire). This cannot deadlock: all blocks are resident at once, and each
first finishes its items of the first matmul, in which nothing waits for a counter. That holds for one stream only: two
such kernels at the same time could each occupy half of the GPU and wait forever for blocks that cannot start.
"""

from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, block_idx, grid_dim, thread_idx
from max.gpu.memory import AddressSpace, external_memory
from max.gpu.sync import syncwarp

from ..activations import Activations
from ..gpu.overlap import let_next_kernel_begin, wait_for_kernels_before
from ..layouts.sm90_tiles import Sm90Tiles
from ..pointers import ConstPointer
from .config import WARPGROUP, Sm90Config, check_config
from .epilogue import Bf16Pointer, Output, load_bias
from .loader import Rows, load, load_ahead
from .mma import add_up, multiply_mma
from .ptx import add_release, load_acquire, pause
from .schedule import Schedule, list_experts
from .stages import Stages, Turns

comptime _STORING_WARPS = 4
"""Warps that store a row tile."""

comptime Counts = MutPointer[Int32, MutUntrackedOrigin]
"""By expert, how many warps have stored their rows of a tile of h."""


@inline(.always)
def _tiles(second: Bool, hidden: Int32, inner: Int32) -> Sm90Tiles:
    """Returns the sizes of the first or second matmul's weights."""
    return Sm90Tiles(Int(hidden if second else 2 * inner), Int(inner if second else hidden))


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(config.threads())),
    `nvvm.minctasm`=SIMDLength(config.blocks),
)
def grouped_mlp_kernel[
    config: Sm90Config
](
    y: Bf16Pointer,
    h: Bf16Pointer,
    stored: Counts,
    x: ConstPointer[DType.bfloat16],
    gate_up: ConstPointer[DType.uint8],
    gate_up_bias: ConstPointer[DType.bfloat16],
    down: ConstPointer[DType.uint8],
    down_bias: ConstPointer[DType.bfloat16],
    offsets: ConstPointer[DType.int32],
    order: ConstPointer[DType.int32],
    rows: Int32,
    experts: Int32,
    hidden: Int32,
    inner: Int32,
    top_k: Int32,
    limit: Float32,
):
    """Works through items `block_idx.x`, `block_idx.x + grid_dim.x`, ... of both matmuls' schedules, concatenated.

    Parameters:
        config: The tiling configuration.

    Args:
        y: [P, hidden].
        h: [P, inner].
        stored: [E], zeros at launch; holds the counts afterwards.
        x: [T, hidden].
        gate_up: Packed [E, 2 inner, hidden], see `Sm90Tiles`.
        gate_up_bias: [E, 2 inner].
        down: Packed [E, hidden, inner].
        down_bias: [E, hidden].
        offsets: [E + 1].
        order: [P].
        rows: P.
        experts: E.
        hidden: A multiple of 32.
        inner: A multiple of 32.
        top_k: Routed rows per token.
        limit: SwiGLU's clamp.
    """
    check_config[config]()
    comptime assert config.split_k and not config.moves_registers(), "for few tokens"
    var stages = Stages[config](
        external_memory[UInt8, address_space=AddressSpace.SHARED, alignment=1024]()
    )
    var thread = Int(thread_idx.x)
    var group = thread // WARPGROUP
    var lane = thread % 32
    if thread == 32:
        stages.init_barriers()
    wait_for_kernels_before()
    let_next_kernel_begin()
    if thread < 32:
        list_experts[config, waited=True](stages.entries(), offsets, experts, rows, 1, Int32(lane))
    barrier()
    var item = Int32(block_idx.x)
    if group == config.warpgroups:
        var loader, in_loader = divmod(
            Int32(thread - WARPGROUP * config.warpgroups), Int32(config.loading_threads)
        )
        var turns = Turns[config.stages, config.loaders](loader)
        var begins = True
        for number in range(2):
            var second = number == 1
            var tiles = _tiles(second, hidden, inner)
            var activations = Activations(
                rebind[ConstPointer[DType.bfloat16]](h) if second else x,
                order,
                Int(rows),
                tiles.k,
                0 if second else Int(top_k),
            )
            var schedule = Schedule[config, in_tiles=True](stages.entries(), Int32(tiles.rows))
            while schedule.has(item):
                var work = schedule.work(item)
                var of_item = Rows[config](down if second else gate_up, tiles, work)
                var begun = Int32(0)
                var count = stored.unsafe_offset(Int(work.expert))
                var wanted = Int32(_STORING_WARPS * config.row_tiles) * (
                    schedule.tiles_of_expert() * Int32(config.row_blocks(Int(2 * inner)))
                )
                # The very first weights need not wait for the row order either, which nobody has read yet.
                var missing = second and load_acquire(count) < wanted
                if in_loader == 0 and (missing or begins):
                    begun = load_ahead[first=False](stages, turns, of_item)
                begins = False
                if missing:
                    while load_acquire(count) < wanted:
                        pause()
                load(stages, turns, work, activations, of_item, begun, in_loader)
                item += Int32(grid_dim.x)
            item -= schedule.items()
    else:
        var counts = stored
        var sharer = Int32(group)
        var in_group = thread % WARPGROUP
        var warp = in_group // 32
        var turns = Turns[config.stages, config.sharers()](sharer)
        var of_group = min(sharer, Int32(config.row_tiles) - 1)
        for number in range(2):
            var second = number == 1
            var first_output = Output[True](h, gate_up_bias, Int(2 * inner), limit)
            var output = Output[False](y, down_bias, Int(hidden))
            var tiles = _tiles(second, hidden, inner)
            var k_tiles = Int32(tiles.k_tiles())
            var schedule = Schedule[config, in_tiles=True](stages.entries(), Int32(tiles.rows))
            while schedule.has(item):
                var coming = schedule.work(item)
                var row_tile = coming.row_tile[config](of_group)
                var bias = down_bias if second else gate_up_bias
                var bias_of_rows = load_bias(bias, tiles.rows, coming, row_tile, warp, lane)

                @inline(.always)
                def multiply[tokens: Int]() {mut}:
                    var of_turns = multiply_mma[config, tokens](stages, turns, k_tiles, warp, lane)
                    var sums = add_up[config, tokens](stages, of_turns, sharer, in_group)
                    if sharer < Int32(config.row_tiles):
                        var work = schedule.work(item)
                        var row_tile = work.row_tile[config](of_group)
                        if second:
                            output.store[tokens](sums, bias_of_rows, work, row_tile, warp, lane)
                        else:
                            first_output.store[tokens](
                                sums, bias_of_rows, work, row_tile, warp, lane
                            )
                            syncwarp()
                            if lane == 0:
                                add_release(counts.unsafe_offset(Int(work.expert)), 1)

                comptime narrow = config.narrow_tokens()
                comptime if narrow < config.tokens:
                    if coming.rows() <= Int32(narrow):
                        multiply[narrow]()
                    else:
                        multiply[config.tokens]()
                else:
                    multiply[config.tokens]()
                item += Int32(grid_dim.x)
            item -= schedule.items()
