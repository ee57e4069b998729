"""Kernels that the driver without a GPU runs: instructions, branches, barriers, faults, graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cuda_driver import without_gpu
from tests.cuda_driver.driver import CudaError
from tests.cuda_driver.launch import Process

pytestmark = without_gpu.needs_compiler

HEAD = """
.version 8.5
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry kernel(.param .u64 x_param, .param .u64 y_param)
.maxntid {threads}
{{
    .reg .pred %p<8>;
    .reg .b16 %h<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<16>;
    ld.param.b64 %rd1, [x_param];
    ld.param.b64 %rd2, [y_param];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 32;
    add.s64 %rd4, %rd1, %rd3;
    mul.wide.u32 %rd5, %r1, 8;
    add.s64 %rd6, %rd2, %rd5;
{body}
    ret;
}}
"""
"""Thread t has its numbers a, b, c at %rd4, 8 bytes apart, and its result at %rd6."""

BITS = {16: "h", 32: "r", 64: "rd"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the driver notes, which processes find as long as this is there."""
    folder = tmp_path_factory.mktemp("driver")
    without_gpu.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in without_gpu.environment(folder, folder).items():
            patch.setenv(name, value)
        patch.setenv("WITHOUT_GPU_LOG", str(folder / "log"))
        yield folder / "log"


@pytest.fixture(scope="module")
def process(log: Path) -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


def run(process: Process, body: str, numbers: NDArray[np.uint64], threads: int = 32) -> list[int]:
    """Gives each thread's result."""
    y = np.zeros(threads, np.uint64)
    ptx = HEAD.format(body=body, threads=threads)
    process.launch(
        ptx, [np.ascontiguousarray(numbers), y], grid=(1, 1, 1), threads=0, shared_bytes=1024
    )
    return y.tolist()


def signed(value: int, bits: int) -> int:
    return value - (value >> bits - 1 << bits)


def float32(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def bits_of(value: float | np.floating[Any]) -> int:
    return int(np.float32(value).view(np.uint32))


def spread(a: int, b: int, selector: int) -> int:
    """What prmt gives: each nibble takes a byte, or its sign."""
    whole = (a | b << 32).to_bytes(8, "little")
    taken = [whole[selector >> 4 * i & 7] for i in range(4)]
    signs = [selector >> 4 * i & 8 for i in range(4)]
    return int.from_bytes(
        bytes(255 * (t >> 7) if s else t for t, s in zip(taken, signs, strict=True)), "little"
    )


Expected = Callable[[int, int, int], int]
INSTRUCTIONS: dict[str, tuple[int, Expected]] = {
    "add.s32 d, a, b": (32, lambda a, b, _: a + b),
    "sub.s64 d, a, b": (64, lambda a, b, _: a - b),
    "mul.lo.s32 d, a, b": (32, lambda a, b, _: a * b),
    "mul.hi.u32 d, a, b": (32, lambda a, b, _: a * b >> 32),
    "mul.hi.s32 d, a, b": (32, lambda a, b, _: signed(a, 32) * signed(b, 32) >> 32),
    "mad.lo.s32 d, a, b, c": (32, lambda a, b, c: a * b + c),
    "div.u32 d, a, 7": (32, lambda a, *_: a // 7),
    "div.s32 d, a, 7": (
        32,
        lambda a, *_: abs(signed(a, 32)) // 7 * (1 if signed(a, 32) > 0 else -1),
    ),
    "rem.u32 d, a, 10": (32, lambda a, *_: a % 10),
    "min.s32 d, a, b": (32, lambda a, b, _: min(a, b, key=lambda x: signed(x, 32))),
    "max.u32 d, a, b": (32, lambda a, b, _: max(a, b)),
    "shl.b32 d, a, 33": (32, lambda *_: 0),
    "shr.u32 d, a, 5": (32, lambda a, *_: a >> 5),
    "shr.s32 d, a, 40": (32, lambda a, *_: signed(a, 32) >> 31),
    "shr.s64 d, a, 9": (64, lambda a, *_: signed(a, 64) >> 9),
    "shf.l.wrap.b32 d, a, b, 37": (32, lambda a, b, _: (b << 32 | a) << 5 >> 32),
    "shf.r.clamp.b32 d, a, b, 40": (32, lambda a, b, _: b),
    "prmt.b32 d, a, b, c": (32, spread),
    "lop3.b32 d, a, b, c, 0x96": (32, lambda a, b, c: a ^ b ^ c),
    "bfe.u32 d, a, 3, 7": (32, lambda a, *_: a >> 3 & 127),
    "bfi.b32 d, a, b, 8, 4": (32, lambda a, b, _: b & ~0xF00 | (a & 15) << 8),
    "bfe.s32 d, a, 20, 20": (32, lambda a, *_: signed(a, 32) >> 20),
    "bfind.u32 d, a": (32, lambda a, *_: a.bit_length() - 1),
    "bfind.s32 d, a": (32, lambda a, *_: (a if a < 1 << 31 else ~a % 2**32).bit_length() - 1),
    "popc.b32 d, a": (32, lambda a, *_: a.bit_count()),
    "clz.b32 d, a": (32, lambda a, *_: 32 - a.bit_length()),
    "brev.b32 d, a": (32, lambda a, *_: int(f"{a:032b}"[::-1], 2)),
    "not.b64 d, a": (64, lambda a, *_: ~a),
    "neg.s32 d, a": (32, lambda a, *_: -a),
    "mul.f32 d, a, b": (32, lambda a, b, _: bits_of(float32(a) * float32(b))),
    "add.f32 d, a, b": (32, lambda a, b, _: bits_of(float32(a) + float32(b))),
    "neg.f32 d, a": (32, lambda a, *_: a ^ 1 << 31),
    "max.f32 d, a, b": (32, lambda a, b, _: bits_of(np.fmax(float32(a), float32(b)))),
    "sub.s16 d, a, b": (16, lambda a, b, _: a - b),
    "and.b16 d, a, b": (16, lambda a, b, _: a & b),
}
"""Instructions of up to three operands, and what they give of numbers without sign."""


def draw(bits: int) -> NDArray[np.uint64]:
    """Numbers of that many bits; as float32 they are finite."""
    rng = np.random.default_rng(bits)
    numbers = rng.integers(0, 1 << bits, (32, 4), dtype=np.uint64, endpoint=False)
    return numbers & ~np.uint64(1 << 30) if bits == 32 else numbers


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_an_instruction_gives_what_ptx_says(process: Process, instruction: str) -> None:
    bits, expected = INSTRUCTIONS[instruction]
    opcode, _, operands = instruction.partition(" ")
    name = BITS[bits]
    places = {"d": "%{0}7", "a": "%{0}4", "b": "%{0}5", "c": "%{0}6"}
    if name == "rd":
        places = {"d": "%{0}10", "a": "%{0}7", "b": "%{0}8", "c": "%{0}9"}
    words = [places.get(word, word).format(name) for word in operands.split(", ")]
    loads = "".join(
        f"ld.global.b{bits} {places[x].format(name)}, [%rd4+{8 * i}];\n"
        for i, x in enumerate("abc")
    )
    result = places["d"].format(name)
    body = f"{loads}{opcode} {', '.join(words)};\nst.global.b{bits} [%rd6], {result};"
    numbers = draw(bits)
    with np.errstate(all="ignore"):
        want = [expected(*map(int, row[:3])) % (1 << bits) for row in numbers]
    assert run(process, body, numbers) == want


CONVERSIONS: dict[str, Callable[[float], int]] = {
    "cvt.rzi.s32.f32 %r5, %r4": lambda x: int(np.trunc(np.clip(x, -(2**31), 2**31 - 1))),
    "cvt.rni.s32.f32 %r5, %r4": lambda x: round(x),
    "cvt.rzi.u32.f32 %r5, %r4": lambda x: max(0, int(x)),
    "cvt.rpi.f32.f32 %r5, %r4": lambda x: bits_of(np.ceil(x)),
    "cvt.rn.bf16x2.f32 %r5, %r4, %r4": lambda x: bfloat16(x) << 16 | bfloat16(x),
}


def bfloat16(value: float) -> int:
    bits = bits_of(value)
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


@pytest.mark.parametrize("instruction", CONVERSIONS)
def test_a_conversion_rounds_as_it_says(process: Process, instruction: str) -> None:
    values = np.random.default_rng(0).normal(0, 100, 32).astype(np.float32)
    values[:4] = 0.5, 1.5, -2.5, 1 + 2**-8
    numbers = np.zeros((32, 4), np.uint64)
    numbers[:, 0] = values.view(np.uint32)
    body = f"ld.global.b32 %r4, [%rd4];\n{instruction};\nst.global.b32 [%rd6], %r5;"
    want = [CONVERSIONS[instruction](float(x)) % 2**32 for x in values]
    assert run(process, body, numbers) == want


LANES = np.arange(32)
WARP_WIDE: dict[str, list[int]] = {
    "shfl.sync.bfly.b32 %r5, %r1, 5, 31, -1": (LANES ^ 5).tolist(),
    "shfl.sync.up.b32 %r5, %r1, 2, 0, -1": np.where(LANES < 2, LANES, LANES - 2).tolist(),
    "shfl.sync.down.b32 %r5, %r1, 3, 31, -1": np.where(LANES > 28, LANES, LANES + 3).tolist(),
    "shfl.sync.idx.b32 %r5, %r1, 1, 0x181f, -1": (LANES // 8 * 8 + 1).tolist(),
    "redux.sync.max.s32 %r5, %r1, -1": [31] * 32,
    "setp.gt.u32 %p1, %r1, 29; vote.sync.ballot.b32 %r5, %p1, -1": [0xC0000000] * 32,
    "elect.sync %r6|%p1, -1; selp.b32 %r5, 7, 8, %p1": [7] + 31 * [8],
    # Each lane goes round as often as its number says, and all meet again.
    "mov.b32 %r5, 0; AGAIN: add.s32 %r5, %r5, 2; setp.lt.u32 %p1, %r5, %r1; @%p1 bra AGAIN; "
    "shfl.sync.idx.b32 %r5, %r5, 31, 31, -1": [32] * 32,
    # Lane 0 takes a way that lies behind what the others wait at.
    "mov.b32 %r5, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra ASIDE; BACK: "
    "shfl.sync.idx.b32 %r5, %r5, 0, 31, -1; bra OUT; ASIDE: mov.b32 %r5, 9; bra BACK; OUT: mov.b32 %r6, 0": [
        9
    ]
    * 32,
}


@pytest.mark.parametrize("body", WARP_WIDE)
def test_lanes_of_a_warp_meet(process: Process, body: str) -> None:
    numbers = np.zeros((32, 4), np.uint64)
    assert run(process, f"{body};\nst.global.b32 [%rd6], %r5;", numbers) == WARP_WIDE[body]


def test_warps_exchange_through_shared_memory_behind_a_barrier(process: Process) -> None:
    body = """
    mov.b32 %r4, dynamic;
    shl.b32 %r5, %r1, 2;
    add.s32 %r6, %r4, %r5;
    st.shared.b32 [%r6], %r1;
    bar.sync 0;
    xor.b32 %r5, %r5, 252;
    add.s32 %r6, %r4, %r5;
    ld.shared.b32 %r7, [%r6];
    st.global.b32 [%rd6], %r7;"""
    assert run(process, body, np.zeros((64, 4), np.uint64), threads=64) == list(range(63, -1, -1))


FAULTS = {
    "mov.u32 %r4, %smid": "an instruction that is not known here",
    "cvt.rm.f32.f64 %r4, %rd7": "an instruction that is not known here",
    "red.global.add.v2.f32 [%rd6], {%r4, %r5}": "an instruction that is not known here",
    "st.global.b32 [%rd6+0x7fffffff0000], %r1": "where no memory is",
    "st.global.b32 [%rd6+2], %r1": "which is misaligned",
    "ld.shared.b32 %r4, [dynamic+4096]": "of shared memory",
    "trap": "a trap",
    "tex.1d.v4.f32.s32 {%r4, %r5, %r6, %r7}, [%rd1, {%r1}]": "an instruction that is not known here",
    "setp.eq.u32 %p1, %r1, 0; @%p1 bar.sync 0": "a part of a warp alone",
    "bar.sync 0, 64": "nothing goes on",
    "mov.b32 %r4, 1; mbarrier.init.shared.b64 [dynamic], %r4; ROUND: "
    "mbarrier.try_wait.parity.shared.b64 %p1, [dynamic], 0; @!%p1 bra ROUND": "nothing goes on",
    "setp.eq.u32 %p1, %r1, 0; @%p1 bra ASIDE; shfl.sync.idx.b32 %r5, %r1, 0, 31, -1; ASIDE: ret": "which is elsewhere",
}


@pytest.mark.parametrize("body", FAULTS)
def test_a_fault_is_told_with_its_kernel_and_instruction(
    process: Process, log: Path, body: str
) -> None:
    log.unlink(missing_ok=True)
    process.close()
    with pytest.raises(CudaError, match="719"):
        run(process, f"{body};", np.zeros((32, 4), np.uint64))
    [line] = [x for x in log.read_text().splitlines() if x.startswith("failed: ")]
    assert line.startswith("failed: kernel, block 0 0 0, warp 0, ")
    assert FAULTS[body] in line


GRAPH = """
import ctypes

from tests.cuda_driver.driver import Driver, Kernel, LaunchConfig, open_library

library = ctypes.CDLL("libcuda.so.1")
driver = Driver(open_library())
kernel = Kernel(driver, PTX)
address = driver.allocate(8)
x = ctypes.c_uint32.from_address(address)
x.value = 40
stream, graph, instance = ctypes.c_void_p(16), ctypes.c_void_p(), ctypes.c_void_p()
number = ctypes.c_uint64(address)
parameters = (ctypes.c_void_p * 2)(*2 * [ctypes.addressof(number)])
config = LaunchConfig(grid=(1, 1, 1), block=(32, 1, 1), stream=stream)
library.cuStreamBeginCapture(stream, 0)
library.cuLaunchKernelEx(ctypes.byref(config), kernel._function, parameters, None)
library.cuMemsetD32Async(ctypes.c_void_p(address + 4), 7, ctypes.c_size_t(1), stream)
library.cuStreamEndCapture(stream, ctypes.byref(graph))
seen = [x.value]
library.cuGraphInstantiateWithFlags(ctypes.byref(instance), graph, ctypes.c_uint64(0))
for _ in range(2):
    library.cuGraphLaunch(instance, stream)
    library.cuStreamSynchronize(stream)
    seen.append(x.value)
print(seen, ctypes.c_uint32.from_address(address + 4).value)
"""


@pytest.mark.parametrize("late", [False, True])
def test_a_graph_does_when_it_is_launched_what_was_captured(
    log: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    if late:
        monkeypatch.setenv("WITHOUT_GPU_LATE", "1")
    body = "setp.ne.u32 %p1, %r1, 0; @%p1 ret; mov.b32 %r4, 1; red.global.add.u32 [%rd1], %r4;"
    program = f"PTX = {HEAD.format(body=body, threads=32)!r}\n{GRAPH}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[40, 41, 42] 7\n", done.stderr


TESTS = [
    "tests/custom_ops/mxfp4/sm90/test_grouped_matmul.py",
    "tests/custom_ops/mxfp4/sm90/test_attention.py",
    "tests/custom_ops/mxfp4/gpu/test_kernels.py",
]


@pytest.mark.slow
def test_kernels_give_what_they_give_on_a_gpu(log: Path) -> None:
    """Tests of ours that run on either: wgmma, mma, matrices of shared memory, clusters, copies and their barriers."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MXFP4_GPU_TESTS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
