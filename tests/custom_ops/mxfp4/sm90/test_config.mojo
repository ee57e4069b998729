"""The choice of a configuration, and what each asks of a multiprocessor."""

from std.testing import TestSuite, assert_equal, assert_true

from mxfp4.sm90.config import (
    DECODE_8,
    DECODE_16,
    MIDDLE_32,
    MIDDLE_64,
    PREFILL_128,
    SHARED_BYTES,
    SM_REGISTERS,
    Sm90Config,
    choose_config,
)


def test_rows_to_an_expert_choose() raises:
    # 20b: four routed rows a token, 32 experts.
    assert_true(choose_config(4, 32) == DECODE_8)
    assert_true(choose_config(64, 32) == DECODE_8)
    assert_true(choose_config(65, 32) == DECODE_16)
    assert_true(choose_config(256, 32) == DECODE_16)
    assert_true(choose_config(1024, 32) == MIDDLE_32)
    assert_true(choose_config(2048, 32) == MIDDLE_64)
    assert_true(choose_config(2049, 32) == PREFILL_128)
    assert_true(choose_config(0, 32) == DECODE_8)
    # 120b: 128 experts.
    assert_true(choose_config(1024, 128) == DECODE_16)


def _fits[config: Sm90Config]() raises:
    # Each block's shared memory costs another KiB of the multiprocessor's 228.
    assert_true(config.blocks * (config.shared_bytes() + 1024) <= SHARED_BYTES + 1024)
    assert_true(config.blocks * config.threads() <= 2048)
    assert_equal(config.b_bytes() % 1024, 0)
    assert_equal(config.consumer_registers() % 8, 0)
    assert_true(config.consumer_registers() <= 255)


def test_all_configurations_fit() raises:
    _fits[DECODE_8]()
    _fits[DECODE_16]()
    _fits[MIDDLE_32]()
    _fits[MIDDLE_64]()
    _fits[PREFILL_128]()


def test_worked_sizes() raises:
    # Three warpgroups of a row tile, 128 tokens: 16 KiB of activations, three tiles of weights.
    assert_equal(PREFILL_128.b_bytes(), 16384)
    assert_equal(PREFILL_128.a_bytes(), 3 * 2176)
    assert_equal(PREFILL_128.block_row_tiles(), 3)
    assert_equal(PREFILL_128.row_blocks(2880), 15)
    assert_equal(PREFILL_128.consumer_registers(), 152)
    assert_equal(DECODE_8.block_row_tiles(), 1)
    assert_equal(DECODE_8.sums_bytes(), 64 * 8 * 4)
    assert_equal(DECODE_8.consumer_registers(), 80)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
