"""PTX instructions that the kernels use and that Mojo's library lacks in this form."""

from layout.tma_async import SharedMemBarrier
from max.gpu.memory import AddressSpace
from std.memory import bitcast
from std.sys._assembly import inlined_assembly

comptime SharedBytes = Pointer[
    mut=True, UInt8, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Bytes in shared memory."""

comptime SharedFloats = Pointer[
    mut=True, Float32, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Floats in shared memory."""

comptime SharedBarrier = Pointer[
    mut=True, SharedMemBarrier, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""One or more mbarriers."""


@inline(.always)
def copy_bulk(target: SharedBytes, source: ImmPointer[UInt8, _], size: Int, barrier: SharedBarrier):
    """Starts a bulk copy to shared memory; a barrier counts the bytes when they have arrived.

    Args:
        target: The destination, 16-byte aligned.
        source: The source in global memory, 16-byte aligned.
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
    """Starts copying 16 bytes to shared memory, bypassing L1, or writing zeros there.

    Args:
        target: The destination.
        source: The source in global memory; not read unless `take`.
        take: Whether to copy.
    """
    inlined_assembly[
        "cp.async.cg.shared.global [$0], [$1], 16, $2;",
        NoneType,
        constraints="r,l,r,~{memory}",
    ](Int32(Int(target)), Int64(Int(source)), Int32(16 if take else 0))


@inline(.always)
def arrive_behind_copies(barrier: SharedBarrier):
    """Arrives at a barrier once every `copy_16_bytes` that this thread has started so far is complete.

    Args:
        barrier: The barrier, whose expected count must include this arrival.
    """
    inlined_assembly[
        "cp.async.mbarrier.arrive.noinc.shared.b64 [$0];", NoneType, constraints="r,~{memory}"
    ](Int32(Int(barrier)))


@inline(.always)
def prefetch(source: ImmPointer[BFloat16, _]):
    """Prefetches a line of global memory into L2.

    Args:
        source: An address in the line.
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
    """Stores values to global memory under a predicate, not a branch, so that later code need not wait for them.

    Parameters:
        width: Number of values, one or two.

    Args:
        target: The destination; not written unless `take`.
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
    """Multiplies to 64 bits in one instruction; a compiler that has lost track of the 32-bit factors emits several.

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
    """Returns a word unchanged, and keeps what depends on it below this point.

    Decoding has no side effects, so a compiler could hoist it above a wait, into registers that a product in flight
    still reads.

    Args:
        word: The word.

    Returns:
        The same.
    """
    return inlined_assembly["mov.b32 $0, $1;", UInt32, constraints="=r,r,~{memory}"](word)


@inline(.always)
def select_bytes[selector: Int](low: UInt32, high: UInt32) -> UInt32:
    """Builds a word from any four bytes of two words.

    Parameters:
        selector: A nibble per byte, lowest first: 0 to 3 select from the first word, 4 to 7 from the second.

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
    """Transposes a warp's 8 by 8 matrix of 16-bit elements, of which lane l holds two of row l / 4.

    Args:
        word: The lane's two elements.

    Returns:
        Its two elements of the transposed matrix.
    """
    return inlined_assembly[
        "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", UInt32, constraints="=r,r"
    ](word)


@inline(.always)
def address_in_cluster(here: SharedFloats, block: Int) -> UInt32:
    """Maps an address in this block's shared memory to the same place in that of another block of the cluster.

    Args:
        here: The address in this block.
        block: The other block's rank in the cluster.

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
    """Reads a float from another block's shared memory; a cluster barrier must come between its write and this read.

    Parameters:
        offset: Floats from the address on.

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
    """Adds to a counter in global memory, with release semantics at GPU scope.

    What this thread wrote before, or has synchronized with, is visible to whoever acquires the counter.

    Args:
        counter: The counter.
        amount: What to add.
    """
    inlined_assembly[
        "red.release.gpu.global.add.s32 [$0], $1;", NoneType, constraints="l,r,~{memory}"
    ](Int64(Int(counter)), amount)


@inline(.always)
def load_acquire(counter: MutPointer[Int32, _]) -> Int32:
    """Loads a counter from global memory, with acquire semantics at GPU scope.

    What was written before the matching releases is visible to everything after this load.

    Args:
        counter: The counter.

    Returns:
        Its value.
    """
    return inlined_assembly[
        "ld.acquire.gpu.global.s32 $0, [$1];",
        Int32,
        constraints="=r,l,~{memory}",
        has_side_effect=True,
    ](Int64(Int(counter)))


@inline(.always)
def pause():
    """Suspends a thread for up to 100 ns or so, so that polling leaves memory some time."""
    inlined_assembly["nanosleep.u32 50;", NoneType, constraints="~{memory}", has_side_effect=True]()
