"""The emulator on PTX written by hand: what it computes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.ptx_emulator.block import Block, DeadlockError, run_together
from tests.ptx_emulator.launch import launch
from tests.ptx_emulator.memory import GlobalMemory, MemoryAccessError
from tests.ptx_emulator.numbers import decode_bfloat16, encode_bfloat16
from tests.ptx_emulator.program import parse_program
from tests.ptx_emulator.tensor_core import Mode
from tests.ptx_emulator.warp import UnwrittenRegisterError

HEAD = """
.version 8.6
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 memory[];
.visible .entry test(.param .u64 p0, .param .u64 p1)
{
    .reg .pred %p<9>;
    .reg .b32 %r<99>;
    .reg .b64 %rd<99>;
    .reg .f32 %f<99>;
    ld.param.u64 %rd0, [p0];
    ld.param.u64 %rd1, [p1];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd2, %r0, 4;
    add.s64 %rd3, %rd0, %rd2;
    add.s64 %rd4, %rd1, %rd2;
    mov.u32 %r1, memory;
"""
TAIL = "ret; }"


def run(
    body: str,
    source: NDArray[np.generic],
    target: NDArray[np.generic],
    *,
    threads: int = 32,
    mode: Mode = Mode.EAGER,
    seed: int = 0,
) -> None:
    """Runs a body; %rd3 and %rd4 point at each thread's word of the source and of the target."""
    memory = GlobalMemory()
    parameters = [memory.add("source", source), memory.add("target", target)]
    program = parse_program(HEAD + body + TAIL)
    Block(program, memory, parameters, threads=threads, mode=mode, seed=seed).run(10**5)


def run_in_several_orders(
    body: str, source: NDArray[np.generic], target: NDArray[np.generic]
) -> None:
    """Runs a body as often as warps and copies take turns in another order."""
    for seed in range(9):
        run(body, source, target, seed=seed)


def compute(body: str, words: NDArray[np.generic]) -> NDArray[np.uint32]:
    """Gives %r3 of a body that finds its word in %r2."""
    result = np.zeros(len(words), np.uint32)
    body = f"ld.global.u32 %r2, [%rd3]; {body} st.global.u32 [%rd4], %r3;"
    run(body, words, result, threads=len(words))
    return result


WORDS = np.random.default_rng(0).integers(0, 2**32, 32, dtype=np.uint32)
SIGNED = WORDS.view(np.int32)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("add.s32 %r3, %r2, -7;", WORDS - np.uint32(7)),
        ("mul.lo.s32 %r3, %r2, %r2;", WORDS * WORDS),
        ("mad.lo.s32 %r3, %r2, 3, 5;", WORDS * np.uint32(3) + np.uint32(5)),
        ("shl.b32 %r3, %r2, 5;", WORDS << np.uint32(5)),
        ("shl.b32 %r3, %r2, 32;", WORDS * 0),
        ("shr.u32 %r3, %r2, 5;", WORDS >> np.uint32(5)),
        ("shr.s32 %r3, %r2, 5;", (SIGNED >> 5).view(np.uint32)),
        ("shr.s32 %r3, %r2, 99;", (SIGNED >> 31).view(np.uint32)),
        ("shf.l.wrap.b32 %r3, %r2, %r2, 6;", WORDS << np.uint32(6) | WORDS >> np.uint32(26)),
        ("shf.r.wrap.b32 %r3, %r2, %r2, 6;", WORDS >> np.uint32(6) | WORDS << np.uint32(26)),
        ("prmt.b32 %r3, %r2, 0, 0x4040;", (WORDS & 255) * np.uint32(0x0001_0001)),
        ("and.b32 %r3, %r2, 0xFF00; not.b32 %r3, %r3;", ~(WORDS & np.uint32(0xFF00))),
        ("lop3.b32 %r3, %r2, 0xFF, 0xF0F0, 0xEA;", WORDS & np.uint32(0xFF) | np.uint32(0xF0F0)),
        ("bfe.u32 %r3, %r2, 8, 8;", WORDS >> np.uint32(8) & np.uint32(255)),
        ("min.s32 %r3, %r2, 0;", np.minimum(SIGNED, 0).view(np.uint32)),
        ("setp.lt.s32 %p0, %r2, 0; selp.b32 %r3, 1, 2, %p0;", np.where(SIGNED < 0, 1, 2)),
        ("setp.lt.u32 %p0, %r2, 9; not.pred %p1, %p0; selp.b32 %r3, 1, 2, %p1;", WORDS * 0 + 1),
        ("mov.b32 {%r4, %r5}, %r2; mov.b32 %r3, {%r5, %r4};", WORDS >> 16 | WORDS << 16),
        ("cvt.rn.f32.s32 %f0, %r2; cvt.rzi.s32.f32 %r3, %f0;", None),
        ("mul.hi.u32 %r3, %r2, %r2;", (WORDS.astype(np.uint64) ** 2 >> np.uint64(32))),
    ],
)
def test_arithmetic(body: str, want: NDArray[np.uint32] | None) -> None:
    got = compute(body, WORDS)
    if want is None:
        want = SIGNED.astype(np.float32).astype(np.float64).astype(np.int32).view(np.uint32)
    assert (got == want.astype(np.uint32)).all()


def test_the_smaller_or_larger_number_is_nan_where_asked_for() -> None:
    numbers = np.where(np.arange(32) % 2, np.float32(np.nan), np.arange(32, dtype=np.float32))
    got = compute("min.f32 %r3, %r2, 0f40E00000;", numbers.view(np.uint32)).view(np.float32)
    assert (got == np.fmin(numbers, 7)).all()
    got = compute("min.NaN.f32 %r3, %r2, 0f40E00000;", numbers.view(np.uint32)).view(np.float32)
    np.testing.assert_array_equal(got, np.minimum(numbers, 7))
    got = compute("max.NaN.f32 %r3, %r2, 0f40E00000;", numbers.view(np.uint32)).view(np.float32)
    np.testing.assert_array_equal(got, np.maximum(numbers, 7))


def test_bfloat16_products_round_to_even_and_keep_subnormals() -> None:
    a = np.array([0x0040, 0x3F81, 0x7F7F, 0xBF83, 0x0001, 0x4049], np.uint32)
    b = np.array([0x4040, 0x3F81, 0x4000, 0x3F81, 0x3F00, 0x3F80], np.uint32)
    words = np.zeros(32, np.uint32)
    words[:6] = a | b << 16
    swapped = "mov.b32 {%r4, %r5}, %r2; mov.b32 %r6, {%r5, %r4}; mul.rn.bf16x2 %r3, %r2, %r6;"
    got = compute(swapped, words)[:6]
    want = encode_bfloat16(decode_bfloat16(a) * decode_bfloat16(b))
    assert (got & 0xFFFF == want).all()
    assert (got >> 16 == want).all()
    assert (got[0] & 0xFFFF, got[4] & 0xFFFF) == (
        0x00C0,
        0,
    )  # 2^-127 * 3; half the least is even: 0


def test_of_two_floats_the_first_becomes_the_upper_half() -> None:
    numbers = np.arange(1, 33, dtype=np.uint32) * 257  # more than eight bits: rounded
    body = "cvt.rn.f32.s32 %f0, %r2; neg.f32 %f1, %f0; cvt.rn.bf16x2.f32 %r3, %f1, %f0;"
    got = compute(body, numbers)
    assert (got & 0xFFFF == encode_bfloat16(numbers.astype(np.float32))).all()
    assert (got >> 16 == encode_bfloat16(-numbers.astype(np.float32))).all()


def test_a_lanes_word_goes_to_all() -> None:
    got = compute("shfl.sync.idx.b32 %r3, %r2, 5, 31, -1;", WORDS)
    assert (got == WORDS[5]).all()
    got = compute(
        "shl.b32 %r4, %r2, 0; shfl.sync.idx.b32 %r3, %r2, %r4, 31, -1;",
        np.arange(31, -1, -1, dtype=np.uint32),
    )
    assert (got == np.arange(32)).all()


def test_a_lanes_word_comes_from_one_further_down_or_itself() -> None:
    got = compute("shfl.sync.up.b32 %r3, %r2, 4, 0, -1;", WORDS)
    assert (got[4:] == WORDS[:-4]).all()
    assert (got[:4] == WORDS[:4]).all()
    got = compute("shfl.sync.bfly.b32 %r3, %r2, 6, 31, -1;", WORDS)
    assert (got == WORDS[np.arange(32) ^ 6]).all()
    with pytest.raises(NotImplementedError, match="shfl"):
        compute("shfl.sync.up.b32 %r3, %r2, 4, 8, -1;", WORDS)


def test_the_largest_of_a_warps_words_goes_to_all() -> None:
    words = WORDS.view(np.int32)
    assert words.min() < 0 < words.max()
    got = compute("redux.sync.max.s32 %r3, %r2, -1;", WORDS)
    assert (got.view(np.int32) == words.max()).all()
    below = WORDS | np.uint32(1 << 31)
    got = compute("redux.sync.max.s32 %r3, %r2, -1;", below)
    assert (got.view(np.int32) == below.view(np.int32).max()).all()
    for other in ("redux.sync.max.s32 %r3, %r2, 1;", "redux.sync.max.u32 %r3, %r2, -1;"):
        with pytest.raises(NotImplementedError, match="redux"):
            compute(other, WORDS)


def test_lanes_part_and_meet_again() -> None:
    got = compute(
        """
        setp.gt.s32 %p0, %r2, 10;
        @%p0 bra $more;
        mov.b32 %r3, 1;
        bra.uni $end;
        $more:
        mov.b32 %r3, 2;
        $end:
        add.s32 %r3, %r3, 10;
        """,
        np.arange(32, dtype=np.uint32),
    )
    assert (got == np.where(np.arange(32) > 10, 12, 11)).all()


EXCHANGE = """
    shl.b32 %r4, %r0, 2;
    add.s32 %r4, %r1, %r4;
    ld.global.u32 %r2, [%rd3];
    st.shared.u32 [%r4], %r2;
    {barrier}
    xor.b32 %r5, %r0, 63;
    shl.b32 %r5, %r5, 2;
    add.s32 %r5, %r1, %r5;
    ld.shared.u32 %r3, [%r5];
    st.global.u32 [%rd4], %r3;
"""


def test_warps_meet_at_a_barrier() -> None:
    source, target = np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    for seed in range(5):
        run(EXCHANGE.format(barrier="bar.sync 0;"), source, target, threads=64, seed=seed)
        assert (target == source[::-1]).all()


def test_without_the_barrier_one_reads_before_it_is_written() -> None:
    source, target = np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    with pytest.raises(MemoryAccessError, match="is read before it is written"):
        run(EXCHANGE.format(barrier=""), source, target, threads=64)


WAIT = """
    {{
    .reg .pred P1;
    AGAIN:
    mbarrier.try_wait.parity.shared::cta.b64 P1, [%r1], 0;
    @P1 bra DONE;
    bra AGAIN;
    DONE:
    }}
"""
BULK = """
    setp.ne.s32 %p0, %r0, 0;
    @%p0 bra $ready;
    mbarrier.init.shared.b64 [%r1], {count};
    mbarrier.arrive.expect_tx.shared.b64 _, [%r1], 128;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1+1024], [%rd0], 128, [%r1];
    $ready:
    bar.sync 0;
    {wait}
    shl.b32 %r4, %r0, 2;
    add.s32 %r4, %r1, %r4;
    ld.shared.u32 %r3, [%r4+1024];
    st.global.u32 [%rd4], %r3;
"""


def test_a_bulk_copy_is_there_when_its_barrier_says_so() -> None:
    source, target = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    for seed in range(5):
        run(BULK.format(count=1, wait=WAIT.format()), source, target, seed=seed)
        assert (target == source).all()


def test_a_bulk_copy_that_nobody_waits_for_is_read_too_soon() -> None:
    source, target = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    with pytest.raises(MemoryAccessError, match="before it is written"):
        run_in_several_orders(BULK.format(count=1, wait=""), source, target)


def test_a_barrier_that_counts_too_many_is_a_deadlock() -> None:
    source, target = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    with pytest.raises(DeadlockError, match=r"warp 0 at .*(try_wait|bra)"):
        run(BULK.format(count=2, wait=WAIT.format()), source, target)


COPY = """
    setp.ne.s32 %p0, %r0, 0;
    @%p0 bra $ready;
    mbarrier.init.shared.b64 [%r1], {threads};
    $ready:
    bar.sync 0;
    shl.b32 %r4, %r0, 4;
    add.s32 %r4, %r1, %r4;
    mul.wide.u32 %rd5, %r0, 16;
    add.s64 %rd5, %rd0, %rd5;
    setp.lt.u32 %p1, %r0, {taken};
    selp.b32 %r6, 16, 0, %p1;
    cp.async.cg.shared.global [%r4+1024], [%rd5], 16, %r6;
    cp.async.mbarrier.arrive.noinc.shared.b64 [%r1];
"""
"""Each thread copies 16 bytes, or writes zeros, and arrives behind that."""


def test_copies_arrive_when_they_are_done_and_fill_with_zeros() -> None:
    source, target = np.arange(1, 129, dtype=np.uint32), np.full(32, 9, np.uint32)
    body = (
        COPY.format(threads=32, taken=31)
        + WAIT.format()
        + "ld.shared.u32 %r3, [%r4+1024]; st.global.u32 [%rd4], %r3;"
    )
    for seed in range(5):
        run(body, source, target, seed=seed)
        assert (target == [*range(1, 125, 4), 0]).all()


GROUPS = """
    shl.b32 %r4, %r0, 4;
    add.s32 %r4, %r1, %r4;
    mul.wide.u32 %rd5, %r0, 16;
    add.s64 %rd5, %rd0, %rd5;
    cp.async.cg.shared.global [%r4], [%rd5], 16;
    cp.async.commit_group;
    cp.async.cg.shared.global [%r4+1024], [%rd5], 16;
    cp.async.commit_group;
    {wait}
    ld.shared.u32 %r3, [%r4+{offset}];
    st.global.u32 [%rd4], %r3;
"""
"""Each thread copies 16 bytes to two places, in a group each, and reads one."""


def test_groups_of_copies_are_waited_for() -> None:
    source, target = np.arange(128, dtype=np.uint32), np.zeros(32, np.uint32)
    for offset, under_way in ((0, 1), (1024, 0)):
        for seed in range(5):
            wait = f"cp.async.wait_group {under_way};"
            run(GROUPS.format(wait=wait, offset=offset), source, target, seed=seed)
            assert (target == source[::4]).all()
            target[:] = 0


def test_a_group_that_may_still_be_under_way_is_not_there() -> None:
    source, target = np.arange(128, dtype=np.uint32), np.zeros(32, np.uint32)
    body = GROUPS.format(wait="cp.async.wait_group 1;", offset=1024)

    def run_in_several_orders() -> None:
        for seed in range(20):
            run(body, source, target, seed=seed)

    with pytest.raises(MemoryAccessError, match="read before it is written"):
        run_in_several_orders()


def wgmma(columns: int, fence: str) -> str:
    """One product whose A lanes read from the source, and whose B was copied behind the barrier."""
    sums = ", ".join(f"%f{i}" for i in range(columns // 2))
    loads = " ".join(f"ld.global.u32 %r{10 + i}, [%rd3+{16384 + 512 * i}];" for i in range(4))
    zero = " ".join(f"mov.f32 %f{i}, 0f00000000;" for i in range(columns // 2))
    stores = " ".join(f"st.global.f32 [%rd4+{512 * i}], %f{i};" for i in range(columns // 2))
    return f"""
        {COPY.format(threads=128, taken=128)}
        {WAIT.format()}
        {fence}
        {loads} {zero}
        add.s32 %r5, %r1, 1024;
        shr.u32 %r5, %r5, 4;
        cvt.u64.u32 %rd6, %r5;
        or.b64 %rd6, %rd6, {1 << 62 | 64 << 32 | 1 << 16};
        setp.ne.b32 %p2, 1, 0;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16
            {{{sums}}}, {{%r10, %r11, %r12, %r13}}, %rd6, %p2, 1, 1, 0;
        wgmma.commit_group.sync.aligned;
        MIDDLE
        wgmma.wait_group.sync.aligned 0;
        {stores}
    """


def product(
    mode: Mode, middle: str = "", fence: str = "fence.proxy.async;"
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A [64, 16] and B [16, 16] through one wgmma, laid out by hand; gives the result and what it should be."""
    rng = np.random.default_rng(3)
    a = encode_bfloat16(rng.normal(size=(64, 16))).astype(np.uint16)
    b = encode_bfloat16(rng.normal(size=(16, 16))).astype(np.uint16)
    source = np.zeros(16384 // 2 + 4 * 256, np.uint16)
    for n in range(16):
        for k in range(16):
            byte = n * 128 + ((k // 8) ^ (n % 8)) * 16 + k % 8 * 2
            source[byte // 2] = b[n, k]
    registers = source[16384 // 2 :].reshape(4, 128, 2)
    for thread in range(128):
        row, k = thread // 32 * 16 + thread % 32 // 4, thread % 4 * 2
        for register, (down, right) in enumerate([(0, 0), (8, 0), (0, 8), (8, 8)]):
            registers[register, thread] = a[row + down, k + right : k + right + 2]
    target = np.zeros((8, 128), np.float32)
    body = wgmma(16, fence).replace("MIDDLE", middle)
    run(body, source, target, threads=128, mode=mode)
    got = np.zeros((64, 16), np.float32)
    for thread in range(128):
        row, column = thread // 32 * 16 + thread % 32 // 4, thread % 4 * 2
        for i in range(8):
            got[row + i // 2 % 2 * 8, column + i // 4 * 8 + i % 2] = target[i, thread]
    return got, decode_bfloat16(a) @ decode_bfloat16(b).T


@pytest.mark.parametrize("mode", Mode)
def test_wgmma_multiplies(mode: Mode) -> None:
    got, want = product(mode)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_a_fragment_overwritten_in_flight_spoils_the_lazy_product() -> None:
    middle = "mov.b32 %r11, 0;"
    got, want = product(Mode.EAGER, middle)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    got, want = product(Mode.LAZY, middle)
    assert np.abs(got - want).max() > 0.1


def test_sums_read_before_the_wait_are_missing_from_the_lazy_product() -> None:
    middle = "add.f32 %f0, %f0, 0f00000000;"
    got, want = product(Mode.LAZY, middle)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    middle = "mov.f32 %f20, %f0; wgmma.wait_group.sync.aligned 0; mov.f32 %f0, %f20;"
    got, want = product(Mode.LAZY, middle)
    assert (got[0, 0], got[8, 0] == pytest.approx(want[8, 0])) == (0, True)


def test_stores_of_the_generic_proxy_need_a_fence() -> None:
    with pytest.raises(MemoryAccessError, match="with no proxy fence between"):
        product(Mode.EAGER, fence="")


def test_mma_multiplies_and_adds() -> None:
    """Elements of each fragment at the rows and columns that the PTX ISA gives for m16n8k16."""
    rng = np.random.default_rng(4)
    a = encode_bfloat16(rng.normal(size=(16, 16))).astype(np.uint16)
    b = encode_bfloat16(rng.normal(size=(16, 8))).astype(np.uint16)
    c = rng.normal(size=(16, 8)).astype(np.float32)
    source = np.zeros((10, 32), np.uint32)
    for lane in range(32):
        group, within = divmod(lane, 4)
        for i in range(8):
            row, column = group + i // 2 % 2 * 8, within * 2 + i % 2 + i // 4 * 8
            source[i // 2, lane] |= np.uint32(a[row, column]) << np.uint32(i % 2 * 16)
        for i in range(4):
            bits = np.uint32(b[within * 2 + i % 2 + i // 2 * 8, group])
            source[4 + i // 2, lane] |= bits << np.uint32(i % 2 * 16)
            source[6 + i, lane] = c[group + i // 2 * 8, within * 2 + i % 2].view(np.uint32)
    loads = " ".join(f"ld.global.u32 %r{10 + i}, [%rd3+{128 * i}];" for i in range(6))
    loads += " ".join(f"ld.global.f32 %f{i}, [%rd3+{128 * (6 + i)}];" for i in range(4))
    stores = " ".join(f"st.global.f32 [%rd4+{128 * i}], %f{4 + i};" for i in range(4))
    body = f"""
        {loads}
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{%f4, %f5, %f6, %f7}},
            {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{%f0, %f1, %f2, %f3}};
        {stores}
    """
    target = np.zeros((4, 32), np.float32)
    run(body, source, target)
    want = decode_bfloat16(a) @ decode_bfloat16(b) + c
    for lane in range(32):
        group, within = divmod(lane, 4)
        for i in range(4):
            expected = want[group + i // 2 * 8, within * 2 + i % 2]
            assert target[i, lane] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_ldmatrix_gives_each_lane_two_of_a_row() -> None:
    """Rows lie from the last lane's down, so that lanes' own addresses count."""
    source = np.arange(128, dtype=np.uint32).reshape(32, 4)
    stores = " ".join(
        f"ld.global.u32 %r3, [%rd5+{4 * i}]; st.shared.u32 [%r4+{1024 + 4 * i}], %r3;"
        for i in range(4)
    )
    results = " ".join(f"st.global.u32 [%rd4+{128 * i}], %r{10 + i};" for i in range(4))
    body = f"""
        mul.wide.u32 %rd5, %r0, 16;
        add.s64 %rd5, %rd0, %rd5;
        shl.b32 %r4, %r0, 4;
        add.s32 %r4, %r1, %r4;
        {stores}
        bar.warp.sync 0xffffffff;
        sub.s32 %r5, 31, %r0;
        shl.b32 %r5, %r5, 4;
        add.s32 %r5, %r1, %r5;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r5+1024];
        {results}
    """
    target = np.zeros((4, 32), np.uint32)
    run(body, source, target)
    for matrix in range(4):
        for lane in range(32):
            row = 31 - (8 * matrix + lane // 4)
            assert target[matrix, lane] == source[row, lane % 4]


def test_movmatrix_transposes() -> None:
    matrix = np.arange(64, dtype=np.uint16).reshape(8, 8)
    got = compute("movmatrix.sync.aligned.m8n8.trans.b16 %r3, %r2;", matrix.view(np.uint32).ravel())
    np.testing.assert_array_equal(got.view(np.uint16).reshape(8, 8), matrix.T)


MEET = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"


def run_cluster(before: str = MEET, rank: str = "1", after: str = MEET) -> NDArray[np.uint32]:
    """Gives what two blocks of two warps find in their own shared memory or the other's, where they left their rank."""
    body = f"""
        mov.u32 %r2, %ctaid.x;
        mad.lo.s32 %r3, %r2, 64, %r0;
        mul.wide.u32 %rd5, %r3, 4;
        add.s64 %rd5, %rd1, %rd5;
        shl.b32 %r5, %r0, 2;
        add.s32 %r5, %r1, %r5;
        add.s32 %r6, %r2, 7;
        st.shared.u32 [%r5], %r6;
        {before}
        mapa.shared::cluster.u32 %r7, %r5, {rank};
        ld.shared::cluster.u32 %r8, [%r7];
        {after}
        st.global.u32 [%rd5], %r8;
    """
    target = np.zeros((2, 64), np.uint32)
    for seed in range(9):
        memory = GlobalMemory()
        parameters = [memory.add(name, array) for name, array in (("s", target), ("t", target))]
        blocks = [
            Block(
                parse_program(HEAD + body + TAIL),
                memory,
                parameters,
                threads=64,
                index=(rank, 0, 0),
                grid=(2, 1, 1),
                seed=seed,
            )
            for rank in range(2)
        ]
        run_together(blocks, 10**5)
    return target


def test_a_cluster_reads_each_others_shared_memory() -> None:
    np.testing.assert_array_equal(run_cluster(), np.full((2, 64), 8))
    np.testing.assert_array_equal(run_cluster(rank="%r2"), np.repeat([[7], [8]], 64, axis=1))


def test_a_cluster_that_does_not_meet_is_seen() -> None:
    with pytest.raises(MemoryAccessError, match="before it is written"):
        run_cluster(before="")
    with pytest.raises(MemoryAccessError, match="the cluster's block 1 has ended"):
        run_cluster(after="")
    with pytest.raises(MemoryAccessError, match="a cluster of 2"):
        run_cluster(rank="2")
    with pytest.raises(DeadlockError, match=r"barrier\.cluster\.wait"):
        run_cluster(before=f"setp.lt.s32 %p0, %r0, 32; @%p0 bra there; bar.sync 0; there: {MEET}")


RELEASE = "red.release.gpu.global.add.s32 [%rd1], 1;"
ACQUIRE = "ld.acquire.gpu.global.s32 %r3, [%rd1];"


def run_after_another_block(
    release: str = RELEASE, acquire: str = ACQUIRE, *, at_once: bool = True
) -> NDArray[np.uint32]:
    """Gives what a block finds, for each lane, in what another one stores: 9 behind each of 32 counts."""
    body = f"""
        mov.u32 %r2, %ctaid.x;
        setp.eq.s32 %p0, %r2, 0;
        @%p0 bra reader;
        mov.b32 %r4, 9;
        st.global.u32 [%rd3], %r4;
        {release}
        ret;
    reader:
        {acquire}
        setp.lt.s32 %p1, %r3, 32;
        @%p1 bra reader;
        ld.global.u32 %r4, [%rd3];
        st.global.u32 [%rd4+4], %r4;
    """
    for seed in range(9):
        words, found = np.zeros(32, np.uint32), np.zeros(33, np.uint32)
        launch(
            HEAD + body + TAIL,
            [words, found],
            grid=(2, 1, 1),
            threads=32,
            at_once=at_once,
            seed=seed,
        )
    return found[1:]


def test_blocks_that_are_there_at_once_can_wait_for_each_other() -> None:
    np.testing.assert_array_equal(run_after_another_block(), np.full(32, 9))


def test_what_a_block_need_not_see_is_an_error() -> None:
    other = "block 0, warp 0 need not see what block 1, warp 0 stored"
    with pytest.raises(MemoryAccessError, match=other):
        run_after_another_block(acquire="ld.volatile.global.s32 %r3, [%rd1];")
    with pytest.raises(MemoryAccessError, match=other):
        run_after_another_block(release=f"{RELEASE} st.global.u32 [%rd3], %r4;")


def test_a_block_that_waits_for_a_later_one_may_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_together, "__defaults__", (10**4,))
    with pytest.raises(DeadlockError, match="10000 instructions and no end"):
        run_after_another_block(at_once=False)


def test_a_product_that_nobody_waits_for_is_an_error() -> None:
    program = wgmma(16, "fence.proxy.async;").replace("MIDDLE", "")
    body = program.replace("wgmma.wait_group.sync.aligned 0;", "")
    with pytest.raises(RuntimeError, match="ends with products in flight"):
        run(body, np.zeros(16384 // 2 + 1024, np.uint16), np.zeros(1024, np.float32), threads=128)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("popc.b32 %r3, %r0;", NotImplementedError, "popc"),
        ("add.s32 %r3, %r9, 1;", UnwrittenRegisterError, "%r9"),
        ("st.global.u32 [%rd4+128], %r0;", MemoryAccessError, "target: bytes 128..131 of 128"),
        ("ld.global.u32 %r3, [%rd0+2];", MemoryAccessError, "no multiple of 4"),
        ("st.global.u32 [%rd1], %r0;", RuntimeError, "two lanes store to one address"),
        ("ld.shared.u32 %r3, [%r1];", MemoryAccessError, "before it is written"),
        ("mbarrier.arrive.shared.b64 _, [%r1];", RuntimeError, "no barrier was made"),
        ("setp.eq.s32 %p0, %r0, 0; @%p0 bar.sync 0;", RuntimeError, "a part of warp 0 alone"),
    ],
)
def test_what_is_wrong_or_unknown_is_an_error(body: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(body, np.zeros(32, np.uint32), np.zeros(32, np.uint32))
