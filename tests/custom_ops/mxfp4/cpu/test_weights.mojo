"""The order in which weight rows decode, by its formula, and the packing of activations in the same order."""

from std.math import ceildiv
from std.memory import bitcast
from std.testing import TestSuite, assert_equal

from mxfp4.cpu.pack import pack_row, transpose_rows
from mxfp4.cpu.weights import (
    Bf16Rows,
    Mxfp4Rows,
    WeightRows,
    chunk_k,
)
from mxfp4.pointers import ConstPointer
from mxfp4.cpu.words import HAS_BF16_DOT, LANES, Words, per_word
from mxfp4.format import e2m1_value


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _element(word: DType, words: Words, lane: Int, half: Int) -> Float32:
    if word == DType.bfloat16:
        return bitcast[DType.float32]((words[lane] >> UInt32(16 * half)) << 16)
    return bitcast[DType.float32](words[lane])


def _check_order[Rows: WeightRows](weights: Rows, row: Int, k: Int, want: List[Float32]) raises:
    """Element i of vector v is k = chunk * chunk_k + vectors * i + v; zero past the row's end."""
    for chunk in range(ceildiv(k, chunk_k[Rows]())):
        var is_tail = (chunk + 1) * chunk_k[Rows]() > k
        var words = weights.decode[True](row, chunk)
        for v in range(Rows.vectors):
            for i in range(LANES * per_word(Rows.word)):
                var at = chunk * chunk_k[Rows]() + Rows.vectors * i + v
                var element = _element(
                    Rows.word,
                    words[v],
                    i // per_word(Rows.word),
                    i % per_word(Rows.word),
                )
                assert_equal(
                    element,
                    want[at] if at < k else Float32(0),
                    String("chunk ", chunk, " vector ", v, " element ", i),
                )
        if not is_tail:
            var whole = weights.decode[False](row, chunk)
            for v in range(Rows.vectors):
                assert_equal(whole[v], words[v])


def _mxfp4_order[word: DType]() raises:
    comptime rows = 3
    for k in [32, 64, 96, 128, 160, 2880]:
        var groups = k // 32
        var blocks = List[UInt8](length=rows * groups * 16, fill=0)
        var scales = List[UInt8](length=rows * groups, fill=0)
        for i in range(len(blocks)):
            blocks[i] = UInt8((i * 37 + i // 16 * 11) & 255)
        for i in range(len(scales)):
            scales[i] = UInt8((i * 29 + 1) % 255)
        var weights = Mxfp4Rows[word](_const(blocks), _const(scales), groups)
        for row in range(rows):
            var want = List[Float32]()
            for element in range(k):
                var byte = Int(blocks[row * groups * 16 + element // 2])
                want.append(e2m1_value(byte >> 4 if element % 2 else byte & 15))
            _check_order(weights, row, k, want)
            for chunk in range(ceildiv(groups, LANES // 4)):
                var got = weights.scale[True](row, chunk)
                for lane in range(LANES):
                    var group = chunk * (LANES // 4) + lane // 4
                    var s = Int(scales[row * groups + group]) if group < groups else 127
                    assert_equal(
                        got[lane].cast[DType.float64](),
                        Float64(2) ** (s - 127),
                        String("row ", row, " group ", group),
                    )
        _ = blocks^
        _ = scales^


def test_mxfp4_rows_decode_in_order_to_float32() raises:
    _mxfp4_order[DType.float32]()


def test_mxfp4_rows_decode_in_order_to_bfloat16() raises:
    comptime if HAS_BF16_DOT:
        _mxfp4_order[DType.bfloat16]()


def test_mxfp4_worked_address() raises:
    # K = 2880 and AVX-512: row 17, chunk 3 begins at byte 17 * 1440 + 3 * 64 = 24672, its scales at 17 * 90 + 12 = 1542.
    comptime if LANES == 16:
        var blocks = List[UInt8](length=18 * 1440, fill=0)
        var scales = List[UInt8](length=18 * 90, fill=127)
        blocks[24672] = 0x07
        scales[1542] = 130
        var weights = Mxfp4Rows[DType.float32](_const(blocks), _const(scales), 90)
        assert_equal(bitcast[DType.float32](weights.decode[False](17, 3)[0][0]), 6)
        assert_equal(weights.scale[False](17, 3)[3], 8)
        assert_equal(weights.scale[False](17, 3)[4], 1)
        _ = blocks^
        _ = scales^


def test_bf16_rows_widen_in_order() raises:
    comptime rows = 2
    for k in [1, 3, 32, 33, 95, 256]:
        var values = List[BFloat16](length=rows * k, fill=0)
        for i in range(len(values)):
            values[i] = BFloat16(Float32(i % 251) - 100.5)
        for row in range(rows):
            var want = List[Float32]()
            for element in range(k):
                want.append(values[row * k + element].cast[DType.float32]())
            _check_order(Bf16Rows(_const(values), k), row, k, want)
        _ = values^


def _packs_like_decode[Rows: WeightRows](k: Int) raises:
    """Packs a row with the formula's own positions; rounding to bfloat16 is exact for these values.
    """
    var x = List[Float32](length=k, fill=0)
    for i in range(k):
        x[i] = Float32(i % 256) - 77
    var chunks = ceildiv(k, chunk_k[Rows]())
    var packed = List[Words](length=chunks * Rows.vectors, fill=Words(0xFFFF_FFFF))
    pack_row[Rows, False](
        _const(x),
        k,
        chunks,
        packed.unsafe_ptr().unsafe_bitcast[UInt32]().unsafe_origin_cast[MutUntrackedOrigin](),
    )
    for chunk in range(chunks):
        for v in range(Rows.vectors):
            for i in range(LANES * per_word(Rows.word)):
                var at = chunk * chunk_k[Rows]() + Rows.vectors * i + v
                var got = _element(
                    Rows.word,
                    packed[chunk * Rows.vectors + v],
                    i // per_word(Rows.word),
                    i % per_word(Rows.word),
                )
                assert_equal(got, x[at] if at < k else Float32(0), String("k ", at))
    _ = x^
    _ = packed^


def test_activations_pack_in_decoding_order() raises:
    for k in [32, 160, 2880]:
        _packs_like_decode[Mxfp4Rows[DType.float32]](k)
        _packs_like_decode[Bf16Rows](k)
        comptime if HAS_BF16_DOT:
            _packs_like_decode[Mxfp4Rows[DType.bfloat16]](k)


def test_transpose_places_each_word_and_zeroes_absent_rows() raises:
    comptime row_words = 3
    comptime count = LANES - 1
    comptime stride = 2 * LANES
    var rows = List[UInt32](length=LANES * row_words, fill=0)
    for i in range(len(rows)):
        rows[i] = UInt32(i)
    var target = List[Words](length=row_words * 2, fill=Words(0xFFFF_FFFF))
    transpose_rows(
        rows.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin](),
        count,
        row_words,
        stride,
        target.unsafe_ptr().unsafe_bitcast[UInt32]().unsafe_origin_cast[MutUntrackedOrigin](),
    )
    for word in range(row_words):
        for lane in range(LANES):
            var want = UInt32(lane * row_words + word) if lane < count else UInt32(0)
            assert_equal(target[2 * word][lane], want)
        assert_equal(target[2 * word + 1], Words(0xFFFF_FFFF))
    _ = rows^
    _ = target^


def main() raises:
    var suite = TestSuite.discover_tests[__functions_in_module()]()
    comptime if not HAS_BF16_DOT:
        suite.skip[test_mxfp4_rows_decode_in_order_to_bfloat16]()
    comptime if LANES != 16:
        suite.skip[test_mxfp4_worked_address]()
    suite^.run()
