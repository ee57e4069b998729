"""The order in which weight rows decode, by its formula, and the packing of activations in the same order."""

from std.math import ceildiv
from std.memory import bitcast
from std.testing import TestSuite, assert_equal, assert_true
from std.utils.numerics import isnan, nan

from mxfp4.cpu.bf16_rows import Bf16Rows
from mxfp4.cpu.byte_rows import ByteRows, scale_dtype
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.cpu.pack import pack_row, row_words, transpose_rows, x_scales_word
from mxfp4.cpu.weights import (
    WeightRows,
    WordPointer,
    chunk_k,
    groups_per_chunk,
    lane_scales,
)
from mxfp4.cpu.words import HAS_BF16_DOT, LANES, Words, per_word
from mxfp4.format import e2m1_value
from mxfp4.pointers import ConstPointer


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _words(list: List[Words]) -> WordPointer:
    return (
        list.unsafe_ptr()
        .unsafe_bitcast[UInt32]()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


def _element(word: DType, words: Words, i: Int) -> Float32:
    """Gives element i of a register of words."""
    var bits = words[i // per_word(word)] >> UInt32(32 // per_word(word) * (i % per_word(word)))
    if word == DType.bfloat16:
        return bitcast[DType.float32](bits << 16)
    if word == DType.int8:
        return Float32(Int(bits & 0xFF))
    return bitcast[DType.float32](bits)


def _place[Rows: WeightRows](at: Int) -> Tuple[Int, Int]:
    """Gives the vector that holds a chunk's element, and which of the vector's it is: by `WeightRows`' formulas.
    """
    comptime if Rows.registers == 1:
        return (at % Rows.vectors, at // Rows.vectors)
    else:
        comptime splits = Rows.vectors // 4
        var run = at // (16 * splits)  # of 16 bytes: 16 elements, or 32 of half a byte
        var lane = 4 * (run % (LANES // 4)) + run // (LANES // 4)
        var in_word = at % (4 * splits)
        var vector = at % (16 * splits) // (4 * splits) * splits + in_word % splits
        return (vector, 4 * lane + in_word // splits)


def _check_order[Rows: WeightRows](weights: Rows, row: Int, k: Int, want: List[Float32]) raises:
    """Each element is where `_place` says; zero past the row's end. An int8 word holds twice the element, and the zero
    point."""
    for chunk in range(ceildiv(k, chunk_k[Rows]())):
        var is_tail = (chunk + 1) * chunk_k[Rows]() > k
        var packed = weights.load[True](row, chunk)
        if not is_tail:
            var whole = weights.load[False](row, chunk)
            comptime for r in range(Rows.registers):
                assert_equal(whole[r], packed[r])
        var vectors = List[Words]()
        comptime for v in range(Rows.vectors):
            vectors.append(weights.decode[v, False](packed, Words(0)))
        for i in range(chunk_k[Rows]()):
            var at = chunk * chunk_k[Rows]() + i
            var place = _place[Rows](i)
            var element = _element(Rows.word, vectors[place[0]], place[1])
            comptime if Rows.word == DType.int8:
                element = (element - Float32(Rows.zero_point)) / 2
            assert_equal(
                element,
                want[at] if at < k else Float32(0),
                String("chunk ", chunk, " element ", i),
            )


def _mxfp4_order[word: DType, registers: Int = 1]() raises:
    comptime Rows = Mxfp4Rows[word, registers]
    comptime rows = 3
    for k in [32, 64, 96, 128, 160, 512, 2880]:
        var groups = k // 32
        var blocks = List[UInt8](length=rows * groups * 16, fill=0)
        var scales = List[UInt8](length=rows * groups, fill=0)
        for i in range(len(blocks)):
            blocks[i] = UInt8((i * 37 + i // 16 * 11) & 255)
        for i in range(len(scales)):
            scales[i] = UInt8((i * 29 + 1) % 255)
        var weights = Rows(_const(blocks), _const(scales), groups)
        for row in range(rows):
            var want = List[Float32]()
            for element in range(k):
                var byte = Int(blocks[row * groups * 16 + element // 2])
                want.append(e2m1_value(byte >> 4 if element % 2 else byte & 15))
            _check_order(weights, row, k, want)
            comptime half = 0.5 if word == DType.int8 else 1.0  # the weights are twice their value
            var read = List[Words](length=groups // LANES + 2, fill=Words(0))
            # In two parts, as blocks of chunks want them.
            var chunks = ceildiv(groups, LANES // 4 * registers)
            comptime words = groups_per_chunk[Rows]()
            weights.read_scales[False](row, 0, chunks // 2 * words, _words(read))
            weights.read_scales[False](row, chunks // 2 * words, chunks * words, _words(read))
            for chunk in range(chunks):
                var got = bitcast[DType.float32, LANES](lane_scales[Rows](_words(read), chunk))
                for lane in range(LANES):
                    var group = chunk * (LANES // 4 * registers)
                    comptime if registers == 1:
                        group += lane // 4
                    else:
                        group += LANES // 4 * (lane % 4) + lane // 4
                    var s = Int(scales[row * groups + group]) if group < groups else 127
                    assert_equal(
                        got[lane].cast[DType.float64](),
                        half * Float64(2) ** (s - 127),
                        String("row ", row, " group ", group),
                    )
            _ = read^
        _ = blocks^
        _ = scales^


def test_mxfp4_rows_decode_in_order_to_float32() raises:
    _mxfp4_order[DType.float32]()


def test_mxfp4_rows_decode_in_order_to_bfloat16() raises:
    comptime if HAS_BF16_DOT:
        _mxfp4_order[DType.bfloat16]()


def test_mxfp4_rows_decode_in_order_to_int8() raises:
    _mxfp4_order[DType.int8]()
    _mxfp4_order[DType.int8, 4]()


def _byte_order[registers: Int]() raises:
    comptime Rows = ByteRows[DType.int8, DType.int8, registers]
    comptime rows = 2
    for k in [32, 64, 160, 256, 2880]:
        var values = List[UInt8](length=rows * k, fill=0)
        for i in range(rows * k):
            values[i] = UInt8((i * 37 + i // 256) & 255)
        var scales = List[Scalar[scale_dtype(DType.int8)]](length=rows * k // 32, fill=0)
        for i in range(len(scales)):
            scales[i] = Scalar[scale_dtype(DType.int8)](Float32(i % 256 + 1))
        var weights = Rows(_const(values), _const(scales), k // 32)
        for row in range(rows):
            var want = List[Float32]()
            for element in range(k):
                # What `_check_order` makes of a word: half of what it holds beside the zero point.
                want.append(
                    bitcast[DType.int8](values[row * k + element]).cast[DType.float32]() / 2
                )
            comptime if Rows.zero_point:  # else bytes have signs, which `_element` does not read
                _check_order(weights, row, k, want)
            var chunks = ceildiv(k, chunk_k[Rows]())
            comptime words = groups_per_chunk[Rows]()
            var read = List[Words](length=chunks * words // LANES + 2, fill=Words(0))
            weights.read_scales[False](row, 0, chunks // 2 * words, _words(read))
            weights.read_scales[False](row, chunks // 2 * words, chunks * words, _words(read))
            for at in range(k):
                var lane = _place[Rows](at % chunk_k[Rows]())[1] // 4
                var got = bitcast[DType.float32, LANES](
                    lane_scales[Rows](_words(read), at // chunk_k[Rows]())
                )
                assert_equal(
                    got[lane],
                    scales[row * k // 32 + at // 32].cast[DType.float32](),
                    String("row ", row, " k ", at),
                )
            _ = read^
        _ = values^
        _ = scales^


def test_byte_rows_decode_in_order_to_int8() raises:
    _byte_order[1]()
    _byte_order[4]()


def test_folded_words_are_the_scaled_values_of_every_code_and_scale_that_fits() raises:
    comptime if HAS_BF16_DOT:
        comptime Rows = Mxfp4Rows[DType.bfloat16]
        var blocks = List[UInt8](length=64, fill=0)
        for i in range(64):
            # Sixteen codes in each group of 16 bytes, each once in either nibble.
            blocks[i] = UInt8(i % 16 + 16 * ((i * 5 + i // 16) % 16))
        var read = List[Words](length=2, fill=Words(0))
        for s in range(256):
            var scales = List[UInt8](length=4, fill=UInt8(s))
            scales[2] = 127
            var weights = Rows(_const(blocks), _const(scales), 4)
            assert_equal(weights.fits_folding(0, 1), 64 <= s <= 190, String("scale ", s))
            if not weights.fits_folding(0, 1):
                continue
            weights.read_scales[True](0, 0, 4, _words(read))
            var packed = weights.load[False](0, 0)
            comptime for v in range(Rows.vectors):
                var words = weights.decode[v, True](packed, lane_scales[Rows](_words(read), 0))
                for i in range(32):
                    var k = Rows.vectors * i + v
                    var byte = Int(blocks[k // 2])
                    var value = e2m1_value(byte >> 4 if k % 2 else byte & 15)
                    var exponent = 0 if k // 32 == 2 else s - 127
                    assert_equal(
                        _element(DType.bfloat16, words, i).cast[DType.float64](),
                        value.cast[DType.float64]() * Float64(2) ** exponent,
                        String("scale ", s, " k ", k),
                    )
            _ = scales^
        _ = blocks^
        _ = read^


def test_what_int8_sums_start_from_scales_every_sum_by_every_scale_that_fits() raises:
    comptime Rows = Mxfp4Rows[DType.int8]
    comptime groups = LANES // 4
    var blocks = List[UInt8](length=16 * groups, fill=0)
    var read = List[Words](length=2, fill=Words(0))
    for s in range(256):
        var scales = List[UInt8](length=groups, fill=UInt8(s))
        scales[1] = 127
        var weights = Rows(_const(blocks), _const(scales), groups)
        assert_equal(weights.fits_folding(0, 1), s <= 232, String("scale ", s))
        if not weights.fits_folding(0, 1):
            continue
        weights.read_scales[True](0, 0, groups, _words(read))
        var start = lane_scales[Rows](_words(read), 0)
        # 32 products of 12 by 127, and the largest sums there is room for.
        for sum in [0, 1, -1, 48768, -48768, 4194303, -4194304]:
            var total = bitcast[DType.int32, LANES](start) + Int32(sum)
            var got = bitcast[DType.float32, LANES](total) - bitcast[DType.float32, LANES](start)
            for lane in range(LANES):
                var exponent = 0 if lane // 4 == 1 else s - 127
                assert_equal(
                    got[lane].cast[DType.float64](),
                    Float64(sum) * 0.5 * Float64(2) ** exponent,
                    String("scale ", s, " sum ", sum),
                )
        _ = scales^
    _ = blocks^
    _ = read^


def test_mxfp4_worked_address() raises:
    # K = 2880 and AVX-512: row 17, chunk 3 begins at byte 17 * 1440 + 3 * 64 = 24672, its scales at 17 * 90 + 12 = 1542.
    comptime if LANES == 16:
        var blocks = List[UInt8](length=18 * 1440, fill=0)
        var scales = List[UInt8](length=18 * 90, fill=127)
        blocks[24672] = 0x07
        scales[1542] = 130
        var weights = Mxfp4Rows[DType.float32](_const(blocks), _const(scales), 90)
        var packed = weights.load[False](17, 3)
        assert_equal(bitcast[DType.float32](weights.decode[0, False](packed, Words(0))[0]), 6)
        var read = List[Words](length=8, fill=Words(0))
        weights.read_scales[False](17, 0, 90, _words(read))
        var got = bitcast[DType.float32, LANES](
            lane_scales[Mxfp4Rows[DType.float32]](_words(read), 3)
        )
        assert_equal(got[3], 8)
        assert_equal(got[4], 1)
        _ = read^
        _ = blocks^
        _ = scales^


def test_bf16_rows_decode_in_order() raises:
    comptime rows = 2
    for k in [1, 3, 32, 33, 95, 256]:
        var values = List[BFloat16](length=rows * k, fill=0)
        for i in range(len(values)):
            values[i] = BFloat16(Float32(i % 251) - 100.5)
        for row in range(rows):
            var want = List[Float32]()
            for element in range(k):
                want.append(values[row * k + element].cast[DType.float32]())
            _check_order(Bf16Rows[DType.float32](_const(values), k), row, k, want)
        _ = values^


def _packs_like_decode[Rows: WeightRows](k: Int) raises:
    """Packs a row with the formula's own positions; rounding to bfloat16 is exact for these values.
    """
    var x = List[Float32](length=k, fill=0)
    for i in range(k):
        x[i] = Float32(i % 256) - 77
    var chunks = ceildiv(k, chunk_k[Rows]())
    var packed = List[Words](length=chunks * Rows.vectors, fill=Words(0xFFFF_FFFF))
    pack_row[Rows, False](_const(x), k, chunks, _words(packed))
    for chunk in range(chunks):
        for v in range(Rows.vectors):
            for i in range(LANES * per_word(Rows.word)):
                var at = chunk * chunk_k[Rows]() + Rows.vectors * i + v
                var got = _element(Rows.word, packed[chunk * Rows.vectors + v], i)
                assert_equal(got, x[at] if at < k else Float32(0), String("k ", at))
    _ = x^
    _ = packed^


def test_activations_pack_in_decoding_order() raises:
    for k in [32, 160, 2880]:
        _packs_like_decode[Mxfp4Rows[DType.float32]](k)
        _packs_like_decode[Bf16Rows[DType.float32]](k)
        comptime if HAS_BF16_DOT:
            _packs_like_decode[Mxfp4Rows[DType.bfloat16]](k)
            _packs_like_decode[Bf16Rows[DType.bfloat16]](k)


def test_activations_are_rounded_to_the_nearest_bfloat16_even_where_words_are_float32() raises:
    # What lies between two neighbours: below, at and above the middle, which goes to the even one.
    var bits: List[UInt32] = [
        0x3F80_7FFF,
        0x3F80_8000,
        0x3F80_8001,
        0x3F81_7FFF,
        0x3F81_8000,
        0xBF81_8000,
        0x7F7F_FFFF,
        0x7F80_0000,
        0xFF80_0000,
        0x0000_8000,
        0x0001_8000,
        0x8000_0000,
    ]
    var want: List[UInt32] = [
        0x3F80_0000,
        0x3F80_0000,
        0x3F81_0000,
        0x3F81_0000,
        0x3F82_0000,
        0xBF82_0000,
        0x7F80_0000,
        0x7F80_0000,
        0xFF80_0000,
        0x0000_0000,
        0x0002_0000,
        0x8000_0000,
    ]
    comptime Rows = Bf16Rows[DType.float32]
    comptime k = 2 * chunk_k[Rows]()
    var x = List[Float32](length=k, fill=0)
    for i in range(len(bits)):
        x[i] = bitcast[DType.float32](bits[i])
    x[len(bits)] = bitcast[DType.float32](
        UInt32(0x7F80_0001)
    )  # a NaN whose upper half is infinity's
    var packed = List[Words](length=row_words[Rows](2) // LANES, fill=Words(0))
    pack_row[Rows, True](_const(x), k, 2, _words(packed))
    for i in range(len(bits) + 1):
        var in_chunk = i % chunk_k[Rows]()
        var register = i // chunk_k[Rows]() * Rows.vectors + in_chunk % Rows.vectors
        var got = packed[register][in_chunk // Rows.vectors]
        if i < len(bits):
            assert_equal(got, want[i], String("value ", i))
        else:
            assert_true(isnan(bitcast[DType.float32](got)))
    _ = x^
    _ = packed^


def _packs_int8[Rows: WeightRows](k: Int) raises:
    """Each group of 32 has its own scale, largest magnitude / 127; what products start from takes the zero point back.
    """
    var x = List[Float32](length=k, fill=0)
    for i in range(k):
        x[i] = Float32((i * 89) % 251 - 125) * Float32(1 << (i // 32 % 7))
    for i in range(32):
        x[k - 32 + i] = 0  # a group of zeros has no scale to divide by
    var chunks = ceildiv(k, chunk_k[Rows]())
    var packed = List[Words](length=row_words[Rows](chunks) // LANES, fill=Words(0xFFFF_FFFF))
    pack_row[Rows, False](_const(x), k, chunks, _words(packed))
    for group in range(k // 32):
        var largest = Float32(0)
        for i in range(32):
            largest = max(largest, abs(x[32 * group + i]))
        var chunk = 32 * group // chunk_k[Rows]()
        var first = row_words[Rows](chunk) // LANES
        var starts = bitcast[DType.int32, LANES](packed[first + Rows.vectors])
        var scales = bitcast[DType.float32, LANES](packed[first + x_scales_word[Rows]() // LANES])
        var total = 0
        var lanes = List[Bool](length=LANES, fill=False)
        for i in range(32):
            var place = _place[Rows]((32 * group + i) % chunk_k[Rows]())
            var lane = place[1] // 4
            lanes[lane] = True
            var byte = Int(_element(DType.int8, packed[first + place[0]], place[1]))
            var signed = byte - 256 if byte > 127 else byte
            total += signed
            assert_equal(scales[lane], largest / 127)
            assert_true(
                abs(Float32(signed) * scales[lane] - x[32 * group + i]) <= 0.5001 * largest / 127,
                String("group ", group, " element ", i),
            )
        comptime if Rows.zero_point:
            var start = 0
            for lane in range(LANES):
                if lanes[lane]:
                    start += Int(starts[lane])
            assert_equal(start, -Rows.zero_point * total)
    _ = x^
    _ = packed^


def test_activations_quantize_by_groups() raises:
    for k in [32, 160, 2880]:
        _packs_int8[Mxfp4Rows[DType.int8]](k)
        _packs_int8[Mxfp4Rows[DType.int8, 4]](k)
        _packs_int8[ByteRows[DType.int8, DType.int8]](k)
        _packs_int8[ByteRows[DType.int8, DType.int8, 4]](k)


def test_a_group_with_a_nan_has_the_scale_nan() raises:
    comptime Rows = Mxfp4Rows[DType.int8]
    var x = List[Float32](length=64, fill=1)
    x[37] = nan[DType.float32]()
    var chunks = ceildiv(64, chunk_k[Rows]())
    var packed = List[Words](length=row_words[Rows](chunks) // LANES, fill=Words(0))
    pack_row[Rows, False](_const(x), 64, chunks, _words(packed))
    var chunk = 37 // chunk_k[Rows]()
    var lane = _place[Rows](37 % chunk_k[Rows]())[1] // 4
    var scales = bitcast[DType.float32, LANES](
        packed[(row_words[Rows](chunk) + x_scales_word[Rows]()) // LANES]
    )
    assert_true(isnan(scales[lane]))
    _ = x^
    _ = packed^


def test_a_group_too_small_for_a_scale_is_zero() raises:
    comptime Rows = Mxfp4Rows[DType.int8]
    # The scale would be subnormal, and its inverse infinite.
    var x = List[Float32](length=32, fill=Float32(1e-38))
    var packed = List[Words](length=row_words[Rows](1) // LANES, fill=Words(7))
    pack_row[Rows, False](_const(x), 32, 1, _words(packed))
    for register in range(len(packed)):
        assert_equal(packed[register], Words(0), String("register ", register))
    _ = x^
    _ = packed^


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
        suite.skip[test_folded_words_are_the_scaled_values_of_every_code_and_scale_that_fits]()
    comptime if LANES != 16:
        suite.skip[test_mxfp4_worked_address]()
    suite^.run()
