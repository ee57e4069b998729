"""The grouped matmul on words the CPU at hand would not pick by itself, against float64 loops.

The ops choose bfloat16 words where the CPU multiplies them; CPUs without take float32 words of rounded activations.
Both are run here, on both kernels, so that neither path goes untested on a machine that prefers the other.
"""

from std.memory import bitcast
from std.sys import CompilationTarget
from std.random import random_float64, random_ui64, seed
from std.testing import TestSuite, assert_true

from mxfp4.cpu.bf16_rows import Bf16Rows
from mxfp4.cpu.byte_rows import ByteRows, scale_dtype
from mxfp4.cpu.epilogue import BiasEpilogue
from mxfp4.cpu.float_mode import (
    enable_subnormals,
    read_float_mode,
    write_float_mode,
)
from mxfp4.cpu.grouped_matmul import RowGather, dense_matmul, grouped_matmul
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.pointers import ConstPointer
from mxfp4.cpu.weights import WeightRows
from mxfp4.cpu.words import HAS_BF16_DOT, word_of
from mxfp4.format import e2m1_value


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _check[
    word: DType, round_to_bf16: Bool
](k: Int, counts: List[Int], first_scale: Int, bound: Float64) raises:
    """Compares every output with a float64 sum of the decoded, unrounded products; scales are `first_scale` to 6 more.
    """
    comptime n = 34
    var experts = len(counts)
    var groups = k // 32
    var offsets = List[Int32](length=experts + 1, fill=0)
    for e in range(experts):
        offsets[e + 1] = offsets[e] + Int32(counts[e])
    var rows = Int(offsets[experts])
    var blocks = List[UInt8](length=experts * n * groups * 16, fill=0)
    for i in range(len(blocks)):
        blocks[i] = UInt8(random_ui64(0, 255))
    var scales = List[UInt8](length=experts * n * groups, fill=0)
    for i in range(len(scales)):
        scales[i] = UInt8(first_scale + Int(random_ui64(0, 6)))
    var bias = List[BFloat16](length=experts * n, fill=0)
    for i in range(len(bias)):
        bias[i] = BFloat16(random_float64(-1, 1))
    var x = List[Float32](length=rows * k, fill=0)
    for i in range(len(x)):
        x[i] = Float32(random_float64(-1, 1))
    var y = List[Float32](length=rows * n, fill=Float32(0) / Float32(0))
    grouped_matmul[round_to_bf16=round_to_bf16](
        _const(x),
        RowGather(_const(offsets), 0),
        Mxfp4Rows[word](_const(blocks), _const(scales), groups),
        _const(offsets),
        experts,
        n,
        k,
        BiasEpilogue[True](
            y.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin](),
            _const(bias),
            n,
        ),
    )
    var activations = List[Float64](capacity=len(x))
    for i in range(len(x)):
        var value = x[i]
        comptime if round_to_bf16:
            value = value.cast[DType.bfloat16]().cast[DType.float32]()
        elif word == DType.int8:
            var largest = Float32(0)
            for j in range(i // 32 * 32, i // 32 * 32 + 32):
                largest = max(largest, abs(x[j]))
            value = round(value * (127 / largest)) * (largest / 127)
        activations.append(value.cast[DType.float64]())
    for e in range(experts):
        for j in range(n):
            var weights = List[Float64](capacity=k)
            for i in range(k):
                var byte = Int(blocks[((e * n + j) * k + i) // 2])
                var s = Int(scales[(e * n + j) * groups + i // 32])
                weights.append(
                    e2m1_value(byte >> 4 if i % 2 else byte & 15).cast[DType.float64]()
                    * Float64(2) ** (s - 127)
                )
            for row in range(Int(offsets[e]), Int(offsets[e + 1])):
                var want = bias[e * n + j].cast[DType.float64]()
                for i in range(k):
                    want += weights[i] * activations[row * k + i]
                var got = y[row * n + j].cast[DType.float64]()
                # Not `error > bound`: that is false for NaN, which is what unwritten outputs hold.
                if not (abs(got - want) <= bound):
                    raise Error("row ", row, " output ", j, ": got ", got, ", want ", want)


comptime SCALE = 120
"""Sums of a few units, and scales that fold into bfloat16 words."""


def _check_all[word: DType, round_to_bf16: Bool](bound: Float64) raises:
    seed(7)
    for k in [32, 160, 256]:
        _check[word, round_to_bf16](k, [1, 0, 3, 5], SCALE, bound)
        _check[word, round_to_bf16](k, [0, 9, 40], SCALE, bound)
        _check[word, round_to_bf16](k, [2, 4, 6, 7, 8], SCALE, bound)
        _check[word, round_to_bf16](k, [28, 100], SCALE, bound)


def test_float32_words_of_float32_activations() raises:
    _check_all[DType.float32, False](2e-5)


def test_float32_words_of_rounded_activations() raises:
    _check_all[DType.float32, True](2e-5)


def test_bfloat16_words() raises:
    comptime if HAS_BF16_DOT:
        _check_all[DType.bfloat16, True](2e-5)


def test_bfloat16_words_of_scales_that_do_not_fold() raises:
    comptime if HAS_BF16_DOT:
        seed(8)
        # Scales of 2^-70 and less: every output is its bias, unless something overflows or reads a wrong scale.
        _check[DType.bfloat16, True](160, [1, 0, 8, 40], 50, 1e-7)
        # Folded and unfolded in one run: rows of 2^-66 to 2^-60.
        _check[DType.bfloat16, True](160, [1, 0, 8, 40], 61, 1e-7)


def test_int8_words() raises:
    _check_all[DType.int8, False](2e-5)


def test_int8_words_of_the_largest_scales_that_fold_and_of_larger_ones() raises:
    seed(9)
    for first_scale in [226, 229]:
        _check[DType.int8, False](
            160, [1, 0, 8, 40, 100], first_scale, 2e-5 * Float64(2) ** (first_scale - SCALE)
        )


def _check_blocks[Rows: WeightRows](weights: Rows, values: List[Float64], n: Int, k: Int) raises:
    """Compares products of rows long enough for several blocks of chunks with float64 sums; activations are whole
    numbers of at most 127, one of them in each group of 32, which bfloat16 and int8 hold exactly.
    """
    var bias = List[BFloat16](length=n, fill=0)
    # One pass and several, whose last is smaller, and the few rows that take no blocks.
    for m in [3, 4, 5, 8, 13, 40, 64]:
        var x = List[Float32](length=m * k, fill=0)
        for i in range(len(x)):
            x[i] = 127 if i % 32 == i // 32 % 32 else Float32(Int(random_ui64(0, 254)) - 127)
        var y = List[Float32](length=m * n, fill=Float32(0) / Float32(0))
        dense_matmul[round_to_bf16=True](
            _const(x),
            m,
            weights,
            n,
            k,
            BiasEpilogue[True](
                y.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin](), _const(bias), n
            ),
        )
        for row in range(m):
            for j in range(n):
                var want = Float64(0)
                for i in range(k):
                    want += values[j * k + i] * x[row * k + i].cast[DType.float64]()
                var got = y[row * n + j].cast[DType.float64]()
                if not (abs(got - want) <= 0.02):
                    raise Error(
                        m, " rows, k ", k, ", row ", row, " output ", j, ": ", got, ", want ", want
                    )
        _ = x^
        _ = y^


def test_blocks_of_bf16_rows() raises:
    seed(9)
    comptime n = 67
    for k in [1024, 2890, 4096]:
        var weights = List[BFloat16](length=n * k, fill=0)
        var values = List[Float64](capacity=n * k)
        for i in range(n * k):
            weights[i] = BFloat16(random_float64(-1, 1))
            values.append(weights[i].cast[DType.float64]())
        comptime word = word_of(DType.bfloat16)
        _check_blocks(Bf16Rows[word](_const(weights), k), values, n, k)
        _ = weights^


def test_blocks_of_mxfp4_rows() raises:
    seed(11)
    comptime n = 67
    for k in [1024, 2880, 4096]:
        var blocks = List[UInt8](length=n * k // 2, fill=0)
        for i in range(len(blocks)):
            blocks[i] = UInt8(random_ui64(0, 255))
        var scales = List[UInt8](length=n * k // 32, fill=0)
        for i in range(len(scales)):
            scales[i] = UInt8(random_ui64(112, 118))
        var values = List[Float64](capacity=n * k)
        for i in range(n * k):
            var code = blocks[i // 2] >> 4 if i % 2 else blocks[i // 2] & 15
            var scale = Float64(2) ** (Int(scales[i // 32]) - 127)
            values.append(e2m1_value(Int(code)).cast[DType.float64]() * scale)
        _check_blocks(
            Mxfp4Rows[DType.float32](_const(blocks), _const(scales), k // 32), values, n, k
        )
        _ = blocks^
        _ = scales^


def test_blocks_of_int8_rows() raises:
    seed(10)
    comptime n = 67
    comptime Scale = Scalar[scale_dtype(DType.int8)]
    for k in [1024, 2880, 4096]:
        var weights = List[UInt8](length=n * k, fill=0)
        var scales = List[Scale](length=n * k // 32, fill=0)
        for i in range(len(scales)):
            scales[i] = Scale(random_float64(0.001, 0.01))
        var values = List[Float64](capacity=n * k)
        for i in range(n * k):
            weights[i] = UInt8(random_ui64(0, 255))
            values.append(
                bitcast[DType.int8](weights[i]).cast[DType.float64]()
                * scales[i // 32].cast[DType.float64]()
            )
        _check_blocks(
            ByteRows[DType.int8, DType.int8](_const(weights), _const(scales), k // 32), values, n, k
        )
        comptime word = word_of(DType.bfloat16)
        _check_blocks(
            ByteRows[DType.int8, word](_const(weights), _const(scales), k // 32), values, n, k
        )
        _ = weights^
        _ = scales^


def _begin_flushing() -> UInt64:
    """Makes this thread flush subnormals, as MAX's worker threads do: MXCSR bits 15 and 6, or FPCR bit 24.
    """
    var before = read_float_mode()
    write_float_mode(before | UInt64(0x8040 if CompilationTarget.is_x86() else 1 << 24))
    return before


def test_subnormals_are_enabled_and_the_mode_restored() raises:
    var before = _begin_flushing()
    var flushing = read_float_mode()
    _ = enable_subnormals()
    var tiny = List[Float32](length=2, fill=1.17549435e-38)
    assert_true(tiny[0] * 0.5 > 0, "half of the smallest normal number is not zero")
    write_float_mode(flushing)
    assert_true(read_float_mode() == flushing)
    write_float_mode(before)


def test_a_matmul_leaves_the_mode_of_its_thread_as_it_was() raises:
    var before = _begin_flushing()
    var flushing = read_float_mode()
    _check[DType.float32, False](32, [1], SCALE, 1e-4)  # so small that it stays on this thread
    var after = read_float_mode()
    write_float_mode(before)
    assert_true(flushing != before, "this thread flushed already")
    assert_true(after == flushing)


def main() raises:
    var suite = TestSuite.discover_tests[__functions_in_module()]()
    comptime if not HAS_BF16_DOT:
        suite.skip[test_bfloat16_words]()
        suite.skip[test_bfloat16_words_of_scales_that_do_not_fold]()
    suite^.run()
