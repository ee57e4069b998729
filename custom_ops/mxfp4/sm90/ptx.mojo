"""The PTX instructions that the kernels use and Mojo's library does not have in this form."""

from layout.tma_async import SharedMemBarrier
from max.gpu.memory import AddressSpace
from std.memory import bitcast
from std.sys._assembly import inlined_assembly

comptime SharedBytes = Pointer[
    mut=True, UInt8, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Shared memory."""

comptime SharedFloats = Pointer[
    mut=True, Float32, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Numbers in shared memory."""

comptime SharedBarrier = Pointer[
    mut=True, SharedMemBarrier, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""An mbarrier, or several."""


@inline(.always)
def copy_bulk(target: SharedBytes, source: ImmPointer[UInt8, _], size: Int, barrier: SharedBarrier):
    """Copies a run of bytes to shared memory; a barrier counts them when they are there.

    Args:
        target: Where to, 16-byte aligned.
        source: Where from, in global memory, 16-byte aligned.
        size: Bytes, a multiple of 16.
        barrier: The barrier.
    """
    inlined_assembly[
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
        NoneType,
        constraints="r,l,r,r,~{memory}",
    ](Int32(Int(target)), Int64(Int(source)), Int32(size), Int32(Int(barrier)))


@inline(.always)
def copy_16_bytes(target: SharedBytes, source: ImmPointer[BFloat16, _], take: Bool):
    """Copies 16 bytes to shared memory, or writes zeros; past the first-level cache.

    Args:
        target: Where to.
        source: Where from, in global memory; not read where nothing is taken.
        take: Whether to copy.
    """
    inlined_assembly[
        "cp.async.cg.shared.global [$0], [$1], 16, $2;",
        NoneType,
        constraints="r,l,r,~{memory}",
    ](Int32(Int(target)), Int64(Int(source)), Int32(16 if take else 0))


@inline(.always)
def arrive_behind_copies(barrier: SharedBarrier):
    """Arrives at a barrier, for this thread, when all `copy_16_bytes` that it began so far are done.

    Args:
        barrier: The barrier, which counts this arrival like any other.
    """
    inlined_assembly[
        "cp.async.mbarrier.arrive.noinc.shared.b64 [$0];", NoneType, constraints="r,~{memory}"
    ](Int32(Int(barrier)))


@inline(.always)
def prefetch(source: ImmPointer[BFloat16, _]):
    """Has a line of global memory brought to the second-level cache.

    Args:
        source: Where it lies.
    """
    inlined_assembly["prefetch.global.L2 [$0];", NoneType, constraints="l"](Int64(Int(source)))


@inline(.always)
def store_if[
    width: SIMDLength, //
](
    target: MutPointer[BFloat16, MutUntrackedOrigin],
    values: SIMD[DType.bfloat16, width],
    take: Bool,
):
    """Stores values to global memory or does not, without a branch, so that what comes next need not wait for them.

    Parameters:
        width: How many, one or two.

    Args:
        target: Where to; not written where nothing is taken.
        values: The values.
        take: Whether to store.
    """
    comptime assert width == 1 or width == 2, "a word has up to two"
    comptime if width == 1:
        inlined_assembly[
            "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p st.global.b16 [$0], $1; }",
            NoneType,
            constraints="l,h,r,~{memory}",
        ](Int64(Int(target)), bitcast[DType.uint16, 1](values), UInt32(1 if take else 0))
    else:
        inlined_assembly[
            "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p st.global.b32 [$0], $1; }",
            NoneType,
            constraints="l,r,r,~{memory}",
        ](Int64(Int(target)), bitcast[DType.uint32, 1](values), UInt32(1 if take else 0))


@inline(.always)
def multiply_wide(a: UInt32, b: UInt32) -> Int:
    """Multiplies to 64 bits in one instruction, where a compiler that has lost sight of the factors' 32 bits makes several.

    Args:
        a: A factor.
        b: The other.

    Returns:
        The product.
    """
    return Int(
        inlined_assembly[
            "mul.wide.u32 $0, $1, $2;", UInt64, constraints="=l,r,r", has_side_effect=False
        ](a, b)
    )


@inline(.always)
def pin(word: UInt32) -> UInt32:
    """Gives a word back, but not before what stands above has happened.

    Decoding is arithmetic without side effects, which a compiler may move up across a wait, into registers that a
    product in flight still reads.

    Args:
        word: The word.

    Returns:
        The same.
    """
    return inlined_assembly["mov.b32 $0, $1;", UInt32, constraints="=r,r,~{memory}"](word)


@inline(.always)
def select_bytes[selector: Int](low: UInt32, high: UInt32) -> UInt32:
    """Makes a word of any of the bytes of two.

    Parameters:
        selector: Which, a nibble each from the lowest on: 0 to 3 of the first word, 4 to 7 of the second.

    Args:
        low: The first word.
        high: The second.

    Returns:
        The word.
    """
    return inlined_assembly[
        "prmt.b32 $0, $1, $2, $3;", UInt32, constraints="=r,r,r,n", has_side_effect=False
    ](low, high, Int32(selector))


@inline(.always)
def transpose_8_by_8(word: UInt32) -> UInt32:
    """Transposes a warp's matrix of 8 by 8 elements of 16 bits, of which lane l has two of row l / 4.

    Args:
        word: A lane's two elements.

    Returns:
        Its two of the transposed matrix.
    """
    return inlined_assembly[
        "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", UInt32, constraints="=r,r"
    ](word)


@inline(.always)
def address_in_cluster(here: SharedFloats, block: Int) -> UInt32:
    """Gives where the same lies in the shared memory of one of the cluster's blocks.

    Args:
        here: Where it lies in this block's.
        block: The other's place in the cluster.

    Returns:
        An address for `read_cluster`.
    """
    return inlined_assembly[
        "mapa.shared::cluster.u32 $0, $1, $2;",
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](UInt32(Int(here)), UInt32(block))


@inline(.always)
def read_cluster[offset: Int](there: UInt32) -> Float32:
    """Reads a number from the shared memory of one of the cluster's blocks, which has met with this one since it wrote it.

    Parameters:
        offset: Numbers from the address on.

    Args:
        there: From `address_in_cluster`.

    Returns:
        The number.
    """
    return inlined_assembly[
        "ld.shared::cluster.f32 $0, [$1+$2];", Float32, constraints="=f,r,n,~{memory}"
    ](there, Int32(4 * offset))


@inline(.always)
def add_release(counter: MutPointer[Int32, _], amount: Int32):
    """Adds to a number in global memory, behind all that this thread wrote or knows to be written, for all of the GPU.

    Args:
        counter: The number.
        amount: What to add.
    """
    inlined_assembly[
        "red.release.gpu.global.add.s32 [$0], $1;", NoneType, constraints="l,r,~{memory}"
    ](Int64(Int(counter)), amount)


@inline(.always)
def load_acquire(counter: MutPointer[Int32, _]) -> Int32:
    """Loads a number from global memory; what was written before it was is seen by all that comes later.

    Args:
        counter: The number.

    Returns:
        The number.
    """
    return inlined_assembly[
        "ld.acquire.gpu.global.s32 $0, [$1];",
        Int32,
        constraints="=r,l,~{memory}",
        has_side_effect=True,
    ](Int64(Int(counter)))


@inline(.always)
def pause():
    """Has a thread do nothing for up to 100 ns or so, so that those which ask memory over and over leave it some time.
    """
    inlined_assembly["nanosleep.u32 50;", NoneType, constraints="~{memory}", has_side_effect=True]()
