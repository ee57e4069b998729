"""No matmul reads a byte past its tensors: each ends where a page without access begins.

A load past the end ends the program; prefetches may point there, for they never fault. Linux only: the constants of
mmap are its own.
"""

from std.ffi import external_call
from std.math import align_up
from std.sys import CompilationTarget, size_of
from std.testing import TestSuite, assert_equal

from mxfp4.cpu.epilogue import BiasEpilogue
from mxfp4.cpu.grouped_matmul import RowGather, grouped_matmul
from mxfp4.cpu.bf16_rows import Bf16Rows
from mxfp4.cpu.byte_rows import ByteRows, scale_dtype
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.cpu.weights import WeightRows
from mxfp4.cpu.words import HAS_BF16_DOT

comptime _PAGE = 4096
comptime _READ_WRITE = Int32(3)
comptime _PRIVATE_ANONYMOUS = Int32(0x22)


def _guarded[dtype: DType](count: Int) -> MutPointer[Scalar[dtype], MutUntrackedOrigin]:
    """Maps `count` zeroed elements whose end is the end of accessible memory; the test's process gives them back.
    """
    var bytes = count * size_of[Scalar[dtype]]()
    var size = align_up(bytes, _PAGE)
    var address = external_call["mmap", MutPointer[UInt8, MutUntrackedOrigin]](
        Int(0), size + _PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, Int32(-1), Int(0)
    )
    var refused = external_call["mprotect", Int32](address.unsafe_offset(size), _PAGE, Int32(0))
    debug_assert(refused == 0, "mprotect failed")
    return address.unsafe_offset(size - bytes).unsafe_bitcast[Scalar[dtype]]()


def _multiply[Rows: WeightRows](weights: Rows, counts: List[Int], n: Int, k: Int) raises:
    """Runs one grouped matmul of zeros, every tensor guarded; the sum of outputs is that of the biases.
    """
    var experts = len(counts)
    var offsets = _guarded[DType.int32](experts + 1)
    for e in range(experts):
        offsets[unsafe_offset=e + 1] = offsets[unsafe_offset=e] + Int32(counts[e])
    var rows = Int(offsets[unsafe_offset=experts])
    var bias = _guarded[DType.bfloat16](experts * n)
    for i in range(experts * n):
        bias[unsafe_offset=i] = 1
    var y = _guarded[DType.float32](rows * n)
    grouped_matmul[round_to_bf16=False](
        _guarded[DType.float32](rows * k).as_imm(),
        RowGather(offsets.as_imm(), 0),
        weights,
        offsets.as_imm(),
        experts,
        n,
        k,
        BiasEpilogue[True](y, bias.as_imm(), n),
    )
    for i in range(rows * n):
        assert_equal(y[unsafe_offset=i], 1)


def _mxfp4[word: DType](n: Int, k: Int) raises:
    for rows in [1, 7, 9, 33]:
        _multiply(
            Mxfp4Rows[word](
                _guarded[DType.uint8](2 * n * k // 2).as_imm(),
                _guarded[DType.uint8](2 * n * k // 32).as_imm(),
                k // 32,
            ),
            [1, rows],
            n,
            k,
        )


def test_mxfp4_rows() raises:
    comptime if CompilationTarget.is_linux():
        for n in [2, 6, 34]:
            for k in [32, 96, 160, 256, 544]:
                _mxfp4[DType.float32](n, k)
                _mxfp4[DType.int8](n, k)
                comptime if HAS_BF16_DOT:
                    _mxfp4[DType.bfloat16](n, k)


def test_bf16_rows() raises:
    comptime if CompilationTarget.is_linux():
        for n in [1, 3, 33]:
            for k in [1, 31, 33, 64]:
                for rows in [1, 7, 9, 33]:
                    _multiply(
                        Bf16Rows[DType.float32](_guarded[DType.bfloat16](n * k).as_imm(), k),
                        [rows],
                        n,
                        k,
                    )
                    comptime if HAS_BF16_DOT:
                        _multiply(
                            Bf16Rows[DType.bfloat16](_guarded[DType.bfloat16](n * k).as_imm(), k),
                            [rows],
                            n,
                            k,
                        )


def test_byte_rows() raises:
    comptime if CompilationTarget.is_linux():
        for n in [1, 3, 33]:
            for k in [32, 96, 160, 288]:
                _bytes[DType.int8, DType.int8](n, k)
                _bytes[DType.int8, DType.float32](n, k)
                _bytes[DType.float8_e4m3fn, DType.float32](n, k)
                comptime if HAS_BF16_DOT:
                    _bytes[DType.int8, DType.bfloat16](n, k)


def _bytes[element: DType, word: DType](n: Int, k: Int) raises:
    for rows in [1, 7, 9, 33]:
        _multiply(
            ByteRows[element, word](
                _guarded[DType.uint8](n * k).as_imm(),
                _guarded[scale_dtype(element)](n * k // 32).as_imm(),
                k // 32,
            ),
            [rows],
            n,
            k,
        )


def test_a_reduced_size_of_zero_gives_the_bias() raises:
    comptime if CompilationTarget.is_linux():
        _multiply(Bf16Rows[DType.float32](_guarded[DType.bfloat16](1).as_imm(), 0), [3], 5, 0)


def main() raises:
    var suite = TestSuite.discover_tests[__functions_in_module()]()
    comptime if not CompilationTarget.is_linux():
        suite.skip[test_mxfp4_rows]()
        suite.skip[test_bf16_rows]()
        suite.skip[test_byte_rows]()
        suite.skip[test_a_reduced_size_of_zero_gives_the_bias]()
    suite^.run()
