"""Which element of a matrix each register of a warp holds in `wgmma.m64nNk16`, and where B lies in shared memory.

Each of a warpgroup's four warps owns 16 of the 64 rows. With q = lane / 4 and c = lane % 4, a lane of warp w holds, of
A in bfloat16,

    register   0           1               2               3
    row        16w + q     16w + q + 8     16w + q         16w + q + 8
    k          2c, 2c + 1  2c, 2c + 1      2c + 8, 2c + 9  2c + 8, 2c + 9

and of D in float32, rows 16w + q and 16w + q + 8, two columns of each in every eight.

Source: PTX ISA 9.0, "Register Fragments for wgmma.mma_async.m64nNk16" (A and D), "Swizzling modes" (128 bytes); CUTLASS
describes the same A as `ALayout_64x16 = ((4,8,4),(2,2,2)):((128,1,16),(64,8,512))`. One warp's part of A, and of eight
columns of D, is that of `mma.m16n8k16`: "Matrix Fragments for mma.m16n8k16 with floating point type".
"""

comptime LINE_BYTES = 128
"""Bytes of a line: the elements of a column n of B lie in lines of 64 bfloat16."""


@inline(.always)
def fragment_row(warp: Int, lane: Int, lower: Int) -> Int:
    """Returns a row of A and of D that a lane holds.

    Args:
        warp: The index of the warp in its warpgroup.
        lane: The lane.
        lower: 0 for its first row, 1 for the one eight below.

    Returns:
        The row, 0..63.
    """
    return 16 * warp + lane // 4 + 8 * lower


@inline(.always)
def a_lower(register: Int) -> Int:
    """Returns which of a lane's two rows a register of A belongs to.

    Args:
        register: The register, 0..3.

    Returns:
        0 for the first row, 1 for the lower one.
    """
    return register & 1


@inline(.always)
def a_k(lane: Int, register: Int, half: Int) -> Int:
    """Returns the k of an element of A.

    Args:
        lane: The lane.
        register: The register, 0..3.
        half: The 16-bit half of the register, 0 for the low one.

    Returns:
        The k within the step of 16.
    """
    return 2 * (lane % 4) + half + 8 * (register >> 1)


@inline(.always)
def d_lower(i: Int) -> Int:
    """Returns which of a lane's two rows an element of D belongs to.

    Args:
        i: The register, 0..N/2-1.

    Returns:
        0 for the first row, 1 for the lower one.
    """
    return (i >> 1) & 1


@inline(.always)
def d_column(lane: Int, i: Int) -> Int:
    """Returns the column of an element of D.

    Args:
        lane: The lane.
        i: The register, 0..N/2-1.

    Returns:
        The column, 0..N-1.
    """
    return 8 * (i >> 2) + 2 * (lane % 4) + (i & 1)


@inline(.always)
def swizzle_128b(byte: Int) -> Int:
    """Permutes the 16-byte chunks of a 128-byte line by the line's number modulo 8.

    Worked: line 3, chunk 5 -> chunk 5 ^ 3 = 6: byte 3 * 128 + 5 * 16 = 464 -> 480.

    Args:
        byte: The address, relative to a multiple of 1024.

    Returns:
        The address with bits 4..6 xored with bits 7..9.
    """
    return byte ^ (((byte >> 7) & 7) << 4)


@inline(.always)
def b_byte(n: Int, k: Int) -> Int:
    """Returns the offset of an element of B in its tile of 64 k: column by column, each a swizzled line.

    Worked: (n = 11, k = 20) -> line 11, byte 40 of it: 1448, chunk 2 ^ 3 = 1 -> 1408 + 16 + 8 = 1432.

    Args:
        n: The column.
        k: The k, 0..63.

    Returns:
        Bytes from the start of the tile, which is a multiple of 1024.
    """
    return swizzle_128b(n * LINE_BYTES + 2 * k)
