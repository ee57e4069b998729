"""Hopper's packed weights: worked addresses, a bijection, and the way back."""

from std.testing import TestSuite, assert_equal

from mxfp4.layouts.sm90_swizzle import TilePlace, swizzle_scales, swizzle_word, unswizzle_word
from mxfp4.layouts.sm90_tiles import (
    TILE_BYTES,
    Sm90Tiles,
    gather_code,
    gather_scales,
    gather_word,
    scales_byte,
    source_row,
    spread_code,
    spread_scales,
    spread_word,
    word_byte,
)


def test_worked_addresses() raises:
    assert_equal(Sm90Tiles(2880, 2880).tile_byte(1, 2, 3), 4608768)
    assert_equal(word_byte(2, 5, 3), 1116)
    assert_equal(scales_byte(2, 21), 2132)
    assert_equal(source_row(27), 23)


def test_sizes_of_gpt_oss() raises:
    # 4.25 bits a weight: no padding, in either half of an expert of 20b and of 120b.
    assert_equal(Sm90Tiles(5760, 2880).expert_bytes(), 5760 * 2880 * 17 // 32)
    assert_equal(Sm90Tiles(2880, 2880).expert_bytes(), 2880 * 2880 * 17 // 32)
    assert_equal(Sm90Tiles(96, 96).expert_bytes(), 2 * 2 * TILE_BYTES)


def test_a_tile_is_covered_once() raises:
    var seen = Array[Int, TILE_BYTES](fill=0)
    for warp in range(4):
        for lane in range(32):
            for step in range(4):
                for byte in range(4):
                    seen[word_byte(warp, lane, step) + byte] += 1
            if lane % 4 == 0:
                for byte in range(4):
                    seen[scales_byte(warp, lane) + byte] += 1
    for byte in range(TILE_BYTES):
        assert_equal(seen[byte], 1, String("byte ", byte))


def test_four_lanes_share_a_word_of_scales() raises:
    for warp in range(4):
        for lane in range(32):
            assert_equal(scales_byte(warp, lane), scales_byte(warp, lane // 4 * 4))
            assert_equal(scales_byte(warp, lane) % 4, 0)


def test_rows_are_a_permutation_and_neighbours_share_a_lane() raises:
    var seen = Array[Int, 64](fill=0)
    for row in range(64):
        seen[source_row(row)] += 1
        if row // 8 % 2 == 0:
            assert_equal(source_row(row) % 2, 0)
            assert_equal(source_row(row + 8), source_row(row) + 1)
    for row in range(64):
        assert_equal(seen[row], 1)


def test_words_and_registers_are_each_others() raises:
    # Both ways are linear (masks, shifts, exclusive ors), so the 32 words of one bit stand for all.
    for bit in range(32):
        var word = UInt32(1) << UInt32(bit)
        var spread = spread_word(word)
        assert_equal(gather_word(spread), word, String("bit ", bit))
        for register in range(4):
            for place in range(32):
                var kept = place % 16 == 15 or 6 <= place % 16 <= 8
                assert_equal(kept or ((spread[register] >> UInt32(place)) & 1) == 0, True)
                var one = SIMD[DType.uint32, 4](0)
                one[register] = UInt32(1) << UInt32(place)
                assert_equal(not kept or spread_word(gather_word(one)) == one, True)


def test_each_bit_of_a_word_of_scales_goes_to_a_place_of_its_own() raises:
    var seen = Array[Int, 64](fill=0)
    for bit in range(32):
        var word = UInt32(1) << UInt32(bit)
        var group0 = spread_scales[0](word)
        var group1 = spread_scales[1](word)
        var places = 0
        for place in range(32):
            for group in range(2):
                var spread = group0 if group == 0 else group1
                if (spread >> UInt32(place)) & 1:
                    seen[group * 32 + place] += 1
                    places += 1
        assert_equal(places, 1, String("bit ", bit))
        assert_equal(gather_scales(group0, group1), word)
    for place in range(64):
        assert_equal(seen[place], 1 if 7 <= place % 16 <= 14 else 0)


def test_codes_come_back() raises:
    for code in range(16):
        assert_equal(gather_code(spread_code(UInt32(code))), UInt32(code))


def _round_trip(experts: Int, n: Int, k: Int) raises:
    var groups = k // 32
    var tiles = Sm90Tiles(n, k)
    var blocks = List[UInt8](length=experts * n * groups * 16, fill=0)
    for i in range(len(blocks)):
        blocks[i] = UInt8((i * 131 + i // 256 * 17 + 5) & 255)
    var back = List[UInt8](length=len(blocks), fill=0xEE)
    var source = blocks.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    var target = back.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()
    for expert in range(experts):
        for row_tile in range(tiles.row_tiles()):
            for k_tile in range(tiles.k_tiles()):
                var tile = TilePlace(expert, row_tile, k_tile)
                for warp in range(4):
                    for lane in range(32):
                        for step in range(4):
                            var word = swizzle_word(source, tiles, tile, warp, lane, step)
                            unswizzle_word(word, target, tiles, tile, warp, lane, step)
    for i in range(len(blocks)):
        assert_equal(back[i], blocks[i], String("byte ", i))
    _ = blocks^
    _ = back^


def test_codes_of_all_tiles_come_back() raises:
    _round_trip(2, 128, 192)


def test_padding_is_left_out() raises:
    _round_trip(2, 72, 96)
    _round_trip(2, 41, 32)


def test_a_scale_is_stored_as_an_exponent_field() raises:
    var scales = List[UInt8](length=128 * 4, fill=0)
    for i in range(len(scales)):
        scales[i] = UInt8(i % 129)
    var source = scales.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    var tiles = Sm90Tiles(128, 128)
    for row_tile in range(2):
        for k_tile in range(2):
            var tile = TilePlace(0, row_tile, k_tile)
            for warp in range(4):
                for lane in range(32):
                    var word = swizzle_scales(source, tiles, tile, warp, lane)
                    comptime for group in range(2):
                        for lower in range(2):
                            var row = 64 * row_tile + 16 * warp + lane // 4 * 2 + lower
                            assert_equal(
                                (spread_scales[group](word) >> UInt32(16 * lower + 7)) & 255,
                                UInt32(scales[row * 4 + 2 * k_tile + group]) + 126,
                            )
    _ = scales^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
