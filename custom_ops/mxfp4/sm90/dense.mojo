"""Dense products of few tokens, `y = x @ w.T + bias` with BF16 weights: a stream of weights into warp-level `mma`.

A step of few tokens reads every weight once, so memory bandwidth is what limits it, and MAX's tiles of up to 256
outputs are too few to saturate it. Here a block has 32 outputs, or 8 of a router, which has few, and its warps take
turns along k. Each lane copies the 16 bytes that it will multiply by to a place of its own in shared memory, several
steps ahead, so that a warp waits neither for others nor for memory's latency. In the end the block adds up its warps'
sums, always in the same order.

Products are [tokens, outputs]: activations are A, weights are B, whose fragments are words side by side (`operands`).
"""

from std.math import ceildiv
from std.utils import StaticTuple

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, block_idx, thread_idx
from max.gpu.compute.mma import mma
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.memory import (
    AddressSpace,
    async_copy_commit_group,
    async_copy_wait_group,
    external_memory,
)

from ..gpu.overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before
from ..pointers import ConstPointer
from .config import SHARED_BYTES
from .operands import operand_a, operand_b
from .ptx import SharedBytes, copy_16_bytes

comptime MAX_TOKENS = 32
"""The most tokens; with more, a block would read more bytes of activations than of weights."""

comptime STEP = 32
"""Indices k per step: 8 in each of four lanes."""

comptime ROWS = 32
"""Outputs per block."""

comptime FEW_ROWS = 8
"""Outputs per block where there are few, of the eight columns that a product has at the least."""

comptime _WARPS = 8
"""Warps per block."""

comptime _LANES = 8
"""Rows of weights, or tokens, that a warp's lanes copy at a time, four lanes each."""

comptime _STEPS = 12
"""Steps that a warp has under way at the most: all that it has of the models' K = 2880."""


def choose_rows(outputs: Int, multiprocessors: Int) -> Int:
    """Returns the outputs per block: few where that still makes no more blocks than there are multiprocessors.

    A block reads all activations, so more of them read more bytes, but each is what one multiprocessor reads.

    Args:
        outputs: N.
        multiprocessors: Multiprocessors of the device.

    Returns:
        `ROWS` or `FEW_ROWS`.
    """
    return FEW_ROWS if ceildiv(outputs, FEW_ROWS) <= multiprocessors else ROWS


def _slots(tokens: Int, rows: Int) -> Int:
    """Returns how many steps a warp has under way: some 96 KiB per block, of which a multiprocessor has room for two, or
    all steps that fit where a block has one to itself.
    """
    if rows == FEW_ROWS:
        return min(_STEPS, SHARED_BYTES // (_WARPS * _slot_bytes(tokens, rows)))
    return 5 if tokens == 8 else 4 if tokens == 16 else 3


def _slot_bytes(tokens: Int, rows: Int) -> Int:
    """Returns the size of a warp's step, of weights and of activations."""
    return (rows + tokens) // _LANES * 32 * 16


def _pitch(rows: Int) -> Int:
    """Returns the floats from one token's sums to the next, 8 past a multiple of 32: half a warp stores to different
    banks.
    """
    return rows // 32 * 32 + 8


def shared_bytes(tokens: Int, rows: Int) -> Int:
    """Returns the size of a block's dynamic shared memory.

    Args:
        tokens: Tokens that the kernel has room for.
        rows: Outputs per block.

    Returns:
        The size in bytes.
    """
    return _WARPS * _slots(tokens, rows) * _slot_bytes(tokens, rows)


@fieldwise_init
struct _Rows[count: Int](TrivialRegisterPassable):
    """What a lane copies of a matrix: 16 bytes per step of row l / 4 and of every eighth row after it.

    Parameters:
        count: How many rows.
    """

    var first: ConstPointer[DType.bfloat16]
    """Row l / 4, at the lane's first k."""
    var rows: Int32
    """How many rows there are from there on; for the others the lane writes zeros."""
    var k: Int32
    """Elements from one row to the next."""

    @inline(.always)
    def __init__(
        out self,
        data: ConstPointer[DType.bfloat16],
        begin: Int32,
        end: Int32,
        k: Int32,
        lane: Int32,
    ):
        """Finds a lane's rows from `begin` on."""
        var row = begin + lane // 4
        self.first = data.unsafe_offset(Int(row) * Int(k) + Int(lane % 4 * 8))
        self.rows = end - row
        self.k = k

    @inline(.always)
    def copy(self, step: Int32, target: SharedBytes):
        """Starts copying a step's words, 512 bytes per row for all lanes."""
        comptime for i in range(Self.count):
            copy_16_bytes(
                target.unsafe_offset(512 * i),
                self.first.unsafe_offset(Int(_LANES * i) * Int(self.k) + Int(step * STEP)),
                take=self.rows > Int32(_LANES * i),
            )


@inline(.always)
def _words(source: SharedBytes) -> SIMD[DType.uint32, 4]:
    return source.unsafe_bitcast[UInt32]().unsafe_load[width=4, alignment=16]()


@inline(.always)
def _multiply[
    tokens: Int, rows: Int
](mut sums: SIMD[DType.float32, _sums(tokens, rows)], words: SharedBytes):
    """Multiplies one step that has been copied, all outputs by 16 tokens at a time."""
    var w = Array[SIMD[DType.uint32, 4], rows // _LANES](fill={})
    comptime for i in range(rows // _LANES):
        w[i] = _words(words.unsafe_offset(512 * i))
    comptime for tile in range(ceildiv(tokens, 16)):
        var of_tokens = words.unsafe_offset(512 * (rows // _LANES + 2 * tile))
        var low = _words(of_tokens)
        var high = SIMD[DType.uint32, 4](0)
        comptime if tokens > _LANES:
            high = _words(of_tokens.unsafe_offset(512))
        comptime for i in range(rows // _LANES):
            comptime offset = (tile * (rows // _LANES) + i) * 4
            var d = sums.slice[4, offset=offset]()
            comptime for j in range(0, 4, 2):
                mma(
                    d,
                    operand_a(low[j], high[j], low[j + 1], high[j + 1]),
                    operand_b(w[i][j], w[i][j + 1]),
                    d,
                )
            sums = sums.insert[offset=offset](d)


def _sums(tokens: Int, rows: Int) -> Int:
    """Returns how many sums a lane has: four for 16 tokens by 8 outputs."""
    return ceildiv(tokens, 16) * (rows // _LANES) * 4


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(32 * _WARPS)))
def dense_kernel[
    dtype: DType, tokens: Int, rows: Int
](
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
    x: ConstPointer[DType.bfloat16],
    w: ConstPointer[DType.bfloat16],
    bias: ConstPointer[DType.bfloat16],
    count: Int32,
    outputs: Int32,
    k: Int32,
):
    """Computes `rows` outputs of all tokens.

    Parameters:
        dtype: Of the outputs.
        tokens: Tokens that there is room for: 8, 16 or `MAX_TOKENS`.
        rows: Outputs per block: `ROWS` or `FEW_ROWS`.

    Args:
        y: [T, N].
        x: [T, K]; 16-byte aligned.
        w: [N, K]; 16-byte aligned.
        bias: [N].
        count: T, at most `tokens`.
        outputs: N.
        k: K, a multiple of `STEP`.
    """
    comptime slots = _slots(tokens, rows)
    comptime slot_bytes = _slot_bytes(tokens, rows)
    var shared = external_memory[UInt8, address_space=AddressSpace.SHARED, alignment=16]()
    var lane = Int32(thread_idx.x) % 32
    var warp = Int32(thread_idx.x) // 32
    var first = Int32(block_idx.x) * Int32(rows)
    var weights = _Rows[rows // _LANES](w, first, outputs, k, lane)
    var activations = _Rows[tokens // _LANES](x, 0, count, k, lane)
    var own = shared.unsafe_offset(Int(warp) * slots * slot_bytes + Int(lane) * 16)
    var steps = k // STEP
    var step = warp  # the next to be copied

    wait_for_kernels_before()
    let_next_kernel_begin()
    comptime for slot in range(slots):
        if step < steps:
            weights.copy(step, own.unsafe_offset(slot * slot_bytes))
            activations.copy(step, own.unsafe_offset(slot * slot_bytes + 512 * (rows // _LANES)))
        step += _WARPS
        async_copy_commit_group()
    var sums = SIMD[DType.float32, _sums(tokens, rows)](0)
    var slot = 0
    for _ in range(warp, steps, _WARPS):
        async_copy_wait_group(Int32(slots - 1))
        var words = own.unsafe_offset(slot * slot_bytes)
        _multiply[tokens, rows](sums, words)
        # What a lane reads it copied itself, so that it may overwrite as soon as it has read.
        if step < steps:
            weights.copy(step, words)
            activations.copy(step, words.unsafe_offset(512 * (rows // _LANES)))
        step += _WARPS
        async_copy_commit_group()
        slot = slot + 1 if slot < slots - 1 else 0
    barrier()  # sums overwrite what other warps multiply by
    _add_up[dtype, tokens, rows](shared, sums, y, bias, Int(count), Int(outputs), Int(first))


@inline(.always)
def _add_up[
    dtype: DType, tokens: Int, rows: Int
](
    shared: SharedBytes,
    sums: SIMD[DType.float32, _sums(tokens, rows)],
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
    bias: ConstPointer[DType.bfloat16],
    count: Int,
    outputs: Int,
    first: Int,
):
    """Adds the sums of all warps and the bias, and stores: a thread has an output of every so many tokens.
    """
    comptime pitch = _pitch(rows)
    comptime at_once = 32 * _WARPS // rows  # tokens
    var floats = shared.unsafe_bitcast[Float32]()
    var lane = Int(thread_idx.x) % 32
    var warp = Int(thread_idx.x) // 32
    comptime for column in range(tokens // _LANES):
        var token = _LANES * column + lane // 4
        comptime for i in range(rows // _LANES):
            comptime offset = (column // 2 * (rows // _LANES) + i) * 4 + column % 2 * 2
            floats.unsafe_store[alignment=8](
                (warp * tokens + token) * pitch + _LANES * i + lane % 4 * 2,
                sums.slice[2, offset=offset](),
            )
    barrier()
    var row = Int(thread_idx.x) % rows
    var output = first + row
    if output >= outputs:
        return
    var added = bias[unsafe_offset=output].cast[DType.float32]()
    for token in range(Int(thread_idx.x) // rows, count, at_once):
        var total = added
        comptime for other in range(_WARPS):
            total += floats[unsafe_offset=(other * tokens + token) * pitch + row]
        y[unsafe_offset=token * outputs + output] = total.cast[dtype]()


def enqueue_dense[
    dtype: DType, //
](
    ctx: DeviceContext,
    y: MutPointer[Scalar[dtype], MutUntrackedOrigin],
    x: ConstPointer[DType.bfloat16],
    w: ConstPointer[DType.bfloat16],
    bias: ConstPointer[DType.bfloat16],
    count: Int,
    outputs: Int,
    k: Int,
) raises:
    """Launches the product on a device.

    Parameters:
        dtype: Of the outputs.

    Args:
        ctx: The device.
        y: [T, N].
        x: [T, K].
        w: [N, K].
        bias: [N].
        count: T, 1 to `MAX_TOKENS`.
        outputs: N, at least 1.
        k: K, a multiple of `STEP`.

    Raises:
        If the launch fails.
    """
    var multiprocessors = Int(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT))
    var chosen = choose_rows(outputs, multiprocessors)
    comptime for rows in [FEW_ROWS, ROWS]:
        comptime for tokens in [8, 16, MAX_TOKENS]:
            if rows == chosen and count <= tokens:
                ctx.enqueue_function[dense_kernel[dtype, tokens, rows]](
                    y,
                    x,
                    w,
                    bias,
                    Int32(count),
                    Int32(outputs),
                    Int32(k),
                    grid_dim=ceildiv(outputs, rows),
                    block_dim=32 * _WARPS,
                    shared_mem_bytes=shared_bytes(tokens, rows),
                    func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
                        UInt32(shared_bytes(tokens, rows))
                    ),
                    attributes=overlap_attributes(ctx),
                )
                return
