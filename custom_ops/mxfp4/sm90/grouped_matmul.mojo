"""Each expert's rows times its MXFP4 weights on Hopper: `y[p, :] = x[row(p), :] @ W[e(p)].T`, then bias or SwiGLU.

Transposed, so that weights are the operand in registers: D[weight rows, tokens] = W @ x.T.

    one warp:       list the experts that have rows
    one warpgroup:  for each work item, for each stage of k (its warps take turns, where few lines make a stage):
                        wait until the stage is empty
                        weights: one bulk copy a row tile       -> the stage's full barrier counts bytes
                        activations: 16 bytes a thread and copy, gathered, swizzled -> and one arrival a thread
    the others:     for each work item, for each stage of k (they take turns, where they split k):
                        wait until it is full
                        for each k tile, for each half (32 k, one scale group):
                            decode 2 words of a row tile into fragments; 2 mma for each 8 tokens (`mma`), or 2 wgmma (`wgmma`)
                        it is empty
                    sums through shared memory to one warpgroup a row tile, where they split k
                    epilogue

Tiles with rows for half their width or less are multiplied as narrow ones; in prefill they come behind all others.

| tensor | shape | dtype, layout |
|---|---|---|
| x | [T, K] | bfloat16, any order; `order` says which row |
| weights | Sm90Tiles | uint8 |
| bias | [E, N] | bfloat16 |
| offsets | [E + 1] | int32 |
| order | [P] | int32, the routed row at each place; token = order // top_k |
| y | [P, N] or [P, N / 2] | bfloat16 |
"""

from std.math import ceildiv, gcd
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, block_idx, grid_dim, thread_idx
from max.gpu.intrinsics import warpgroup_reg_alloc, warpgroup_reg_dealloc
from max.gpu.memory import AddressSpace, external_memory, fence_mbarrier_init
from max.gpu.sync import named_barrier, syncwarp

from ..activations import Activations
from ..gpu.overlap import let_next_kernel_begin, wait_for_kernels_before
from ..layouts.fragments import LINE_BYTES, swizzle_128b
from ..layouts.sm90_tiles import TILE_BYTES, TILE_K, Sm90Tiles
from ..pointers import ConstPointer
from .config import PRODUCER_REGISTERS, SHARED_BYTES, WARPGROUP, Sm90Config
from .epilogue import Bf16Pointer, Output
from .mma import multiply_mma
from .ptx import arrive_behind_copies, copy_16_bytes, copy_bulk
from .schedule import Schedule, Work, list_experts
from .stages import Stages, Turns
from .wgmma import multiply_wgmma

comptime _COPY_ELEMENTS = 8
"""Elements that one thread copies at once: 16 bytes."""
comptime _CHUNKS = TILE_K // _COPY_ELEMENTS
"""Copies to a line of 64 k."""


@fieldwise_init
struct _Rows[config: Sm90Config](TrivialRegisterPassable):
    """The weight rows of a work item, in tiles."""

    var first: ConstPointer[DType.uint8]
    """The first tile."""
    var last: Int32
    """The item's last row tile that the expert has: it comes again in the place of those past it, whose products are
    computed and not stored."""
    var k_tiles: Int32
    """Tiles along k."""

    def __init__(out self, weights: ConstPointer[DType.uint8], tiles: Sm90Tiles, work: Work):
        var row_tile = _row_tile[Self.config](work, 0)
        self.first = weights.unsafe_offset(tiles.tile_byte(Int(work.expert), Int(row_tile), 0))
        self.last = Int32(tiles.row_tiles()) - 1 - row_tile
        self.k_tiles = Int32(tiles.k_tiles())

    @inline(.always)
    def stages(self) -> Int32:
        return ceildiv(self.k_tiles, Int32(Self.config.k_tiles))

    @inline(.always)
    def load(self, stages: Stages[Self.config], slot: Int32, stage: Int32):
        """Begins to load a stage's weights, whose bytes its full barrier is told to expect."""
        var k_tile = stage * Int32(Self.config.k_tiles)
        var here = min(Int32(Self.config.k_tiles), self.k_tiles - k_tile)
        var full = stages.full(slot)
        full[].expect_bytes(here * Int32(Self.config.row_tiles * TILE_BYTES))
        comptime for i in range(Self.config.row_tiles):
            copy_bulk(
                stages.a(slot, Int32(i), 0),
                self.first.unsafe_offset(
                    Int((min(Int32(i), self.last) * self.k_tiles + k_tile) * TILE_BYTES)
                ),
                Int(here * TILE_BYTES),
                full,
            )


@inline(.always)
def _load_ahead[
    config: Sm90Config
](
    stages: Stages[config],
    var turns: Turns[config.stages, config.loaders()],
    rows: _Rows[config],
) -> Int32:
    """Begins to load the first work item's weights into all slots: they wait for no one, not even for the tokens' places.

    Returns:
        The first stage that is left.
    """
    while turns.stage < min(Int32(config.stages), rows.stages()):
        rows.load(stages, turns.slot, turns.stage)
        turns.advance()
    return turns.stage


@inline(.always)
def _produce[
    config: Sm90Config
](
    stages: Stages[config],
    mut turns: Turns[config.stages, config.loaders()],
    work: Work,
    activations: Activations,
    rows: _Rows[config],
    begun: Int32,
    thread: Int32,
):
    """Loads the stages of one work item whose turn it is; `thread` counts those that load a stage together.

    The weights of stages before `begun` are on their way already.
    """
    # A thread copies the same chunk of k of several lines; a line is one row of one k tile.
    comptime lines_at_once = config.loading_threads // _CHUNKS
    comptime lines = config.tokens // lines_at_once
    comptime assert lines * lines_at_once == config.tokens, "a k tile's lines must be whole rounds"
    var chunk = thread % _CHUNKS
    var first_line = thread // _CHUNKS
    var row_chunks = Int32(activations.k // _COPY_ELEMENTS)
    # In chunks, so that 32 bits hold them: registers are scarce here. Below 0, and so all along k, for rows that are none.
    var sources = Array[Int32, lines](fill=Int32.MIN)
    comptime for i in range(lines):
        var place = work.first_row + first_line + Int32(i * lines_at_once)
        # Unsigned: lying offsets may make more items than 32 bits count.
        var within = UInt32(place) < UInt32(work.end_row)
        var token = activations.row(Int(place)) if within else -1
        if token >= 0:
            sources[i] = Int32(token) * row_chunks + chunk
    var narrow = work.rows() <= Int32(config.narrow_tokens())
    # Lines eight apart are swizzled alike.
    comptime alike = max(1, 8 // lines_at_once)
    var targets = Array[Int32, alike](fill=0)
    comptime for i in range(alike):
        var line = first_line + Int32(i * lines_at_once)
        targets[i] = Int32(swizzle_128b(Int(line * LINE_BYTES + chunk * 16)))
    while turns.stage < rows.stages():
        stages.empty(turns.slot)[].wait(turns.parity ^ 1)
        if thread == 0 and turns.stage >= begun:
            rows.load(stages, turns.slot, turns.stage)
        syncwarp()  # nothing else says that the warp copies together again, with thread 0
        var b = stages.b(turns.slot)
        var k_chunk = turns.stage * Int32(config.k_tiles * _CHUNKS)
        var left = row_chunks - chunk - k_chunk
        comptime for i in range(lines):
            # A narrow tile's products read no lines past its own.
            comptime if i * lines_at_once >= config.narrow_tokens():
                if narrow:
                    break
            comptime line = i // alike * alike * lines_at_once
            var target = b.unsafe_offset(Int(targets[i % alike]) + line * LINE_BYTES)
            var at = sources[i] + k_chunk
            var source = activations.x.unsafe_offset(Int(at) * _COPY_ELEMENTS)
            comptime for tile in range(config.k_tiles):
                copy_16_bytes(
                    target.unsafe_offset(tile * config.tokens * LINE_BYTES),
                    source.unsafe_offset(tile * TILE_K),
                    at >= 0 and left > Int32(tile * _CHUNKS),
                )
        arrive_behind_copies(stages.full(turns.slot))
        turns.advance()
    turns.stage -= rows.stages()


@inline(.always)
def _add_up[
    config: Sm90Config, tokens: Int
](
    stages: Stages[config],
    sums: SIMD[DType.float32, tokens // 2 * config.row_tiles],
    group: Int32,
    thread: Int,
) -> SIMD[DType.float32, tokens // 2]:
    """Hands one warpgroup's sums of each row tile to the other, that of the tile's number, which adds them to its own.

    Returns:
        For such a warpgroup its row tile's.
    """
    comptime registers = tokens // 2
    var own = SIMD[DType.float32, registers](0)
    var handed = stages.sums().unsafe_offset(thread)
    comptime for row_tile in range(config.row_tiles):
        comptime first = row_tile * registers
        if group == Int32(row_tile):
            own = sums.slice[registers, offset=first]()
        else:
            comptime for i in range(registers):
                handed[unsafe_offset=(first + i) * WARPGROUP] = sums[first + i]
    named_barrier[Int32(2 * WARPGROUP)](1)
    comptime for row_tile in range(config.row_tiles):
        if group == Int32(row_tile):
            comptime for i in range(registers):
                own[i] += handed[unsafe_offset=(row_tile * registers + i) * WARPGROUP]
    named_barrier[Int32(2 * WARPGROUP)](2)  # read before the next item's are written
    return own


@inline(.always)
def _row_tile[config: Sm90Config](work: Work, of_block: Int32) -> Int32:
    """Gives which of an expert's row tiles is one of a block's."""
    return work.row_block * Int32(config.row_tiles) + of_block


def _check_config[config: Sm90Config]():
    # Each block's shared memory costs another KiB of the multiprocessor's.
    comptime fits = config.blocks * (config.shared_bytes() + 1024) <= SHARED_BYTES + 1024
    comptime assert fits, "the stages of all blocks must fit shared memory"
    comptime assert config.b_bytes() % 1024 == 0, "a stage must be whole swizzled tiles"
    # A wait tells rounds apart by parity, so nobody may ask for a round while the one before the last is not over. Who
    # multiplies has been through the slot's last round itself; who loads has waited for a later stage of the same warpgroup.
    comptime assert config.stages % config.sharers() == 0, "a slot must stay with one warpgroup"
    comptime turns = config.loaders() * config.sharers() // gcd(config.loaders(), config.sharers())
    comptime assert (
        turns <= config.stages
    ), "loading warps must come back to a warpgroup within a round"
    comptime shared_out = config.row_tiles == config.warpgroups
    comptime assert config.split_k or shared_out, "each warpgroup must have a row tile"
    comptime two = config.warpgroups == 2 and config.row_tiles <= 2
    comptime assert two or not config.split_k, "two warpgroups split k, and finish a row tile each"
    # Where products are a warpgroup's, a slot is given back when the next stage's have begun.
    comptime assert config.split_k or config.stages >= 2, "a warpgroup must have two slots"
    comptime of_block = config.launch_registers() * (config.warpgroups + 1)
    comptime moved = config.consumer_registers() * config.warpgroups + PRODUCER_REGISTERS
    comptime enough = not config.moves_registers() or moved <= of_block
    comptime assert enough, "registers that a block does not have are waited for, for ever"


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

    Launched to overlap with the kernel before it, it loads weights while that one still runs. Gated, it waits for it
    before all else; otherwise before it reads x, but not before it reads `offsets`.

    Parameters:
        config: How the matmul is cut.
        gated: Whether SwiGLU follows.

    Args:
        y: [P, N], or [P, N / 2] where gated.
        x: [T, K].
        weights: Packed, see `Sm90Tiles`.
        bias: [E, N].
        offsets: [E + 1].
        order: [P]; not read where `top_k` is 0.
        rows: P.
        experts: E.
        n: N.
        k: K, a multiple of 32.
        top_k: Routed rows of a token, or 0 where x has rows in expert order.
        limit: Clamp of SwiGLU.
    """
    _check_config[config]()
    var stages = Stages[config](
        external_memory[UInt8, address_space=AddressSpace.SHARED, alignment=1024]()
    )
    var thread = Int(thread_idx.x)
    var group = thread // WARPGROUP
    var lane = thread % 32
    comptime if gated:
        # Routing is what the kernel before writes.
        wait_for_kernels_before()
        let_next_kernel_begin()
    if thread < 32:
        list_experts[config, waited=gated](stages.entries(), offsets, experts, rows, n, Int32(lane))
    elif thread == 32:
        comptime for slot in range(config.stages):
            stages.full(Int32(slot))[].init(Int32(config.loading_threads + 1))
            stages.empty(Int32(slot))[].init(Int32(4 * config.warpgroups // config.sharers()))
        fence_mbarrier_init()
    barrier()
    var tiles = Sm90Tiles(Int(n), Int(k))
    var schedule = Schedule[config](stages.entries(), n)
    var item = Int32(block_idx.x)
    if group == 0:
        comptime if config.moves_registers():
            warpgroup_reg_dealloc[PRODUCER_REGISTERS]()
        var activations = Activations(x, order, Int(rows), Int(k), Int(top_k))
        var loader, in_loader = divmod(Int32(thread), Int32(config.loading_threads))
        var turns = Turns[config.stages, config.loaders()](loader)
        var begun = Int32(0)
        if schedule.has(item) and in_loader == 0:
            begun = _load_ahead(stages, turns, _Rows[config](weights, tiles, schedule.work(item)))
        comptime if not gated:
            # x is what the kernel before writes, and routing what that one has waited for.
            wait_for_kernels_before()
            let_next_kernel_begin()
        while schedule.has(item):
            var work = schedule.work(item)
            var of_item = _Rows[config](weights, tiles, work)
            _produce(stages, turns, work, activations, of_item, begun, in_loader)
            begun = 0
            item += Int32(grid_dim.x)
    else:
        comptime if config.moves_registers():
            warpgroup_reg_alloc[config.consumer_registers()]()
        var output = Output[gated](y, bias, Int(n), limit)
        var sharer = Int32(group) - 1
        var in_group = thread % WARPGROUP
        var warp = in_group // 32
        var turns = Turns[config.stages, config.sharers()](sharer if config.split_k else 0)
        var k_tiles = Int32(tiles.k_tiles())
        # Its row tile, once sums are added up.
        var of_group = min(sharer, Int32(config.row_tiles) - 1)
        while schedule.has(item):
            var coming = schedule.work(item)
            output.prefetch_bias(coming, _row_tile[config](coming, of_group), warp)

            @inline(.always)
            def multiply[tokens: Int]() {mut}:
                var sums: SIMD[DType.float32, tokens // 2]
                comptime if config.split_k:
                    var of_turns = multiply_mma[config, tokens](stages, turns, k_tiles, warp, lane)
                    sums = _add_up[config, tokens](stages, of_turns, sharer, in_group)
                else:
                    sums = multiply_wgmma[config, tokens](
                        stages, turns, k_tiles, of_group, warp, lane
                    )
                if not config.split_k or sharer < Int32(config.row_tiles):
                    var work = schedule.work(item)
                    output.store[tokens](sums, work, _row_tile[config](work, of_group), warp, lane)

            comptime narrow = config.narrow_tokens()
            comptime if narrow < config.tokens:
                if coming.rows() <= Int32(narrow):
                    multiply[narrow]()
                else:
                    multiply[config.tokens]()
            else:
                multiply[config.tokens]()
            item += Int32(grid_dim.x)
