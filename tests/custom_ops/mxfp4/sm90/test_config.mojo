"""The choice of a configuration, and what each asks of a multiprocessor."""

from std.testing import TestSuite, assert_equal, assert_true

from mxfp4.sm90.config import (
    DECODE_8,
    DECODE_16,
    MIDDLE_64,
    MLP_8,
    MLP_16,
    PREFILL_128,
    PRODUCER_REGISTERS,
    SHARED_BYTES,
    SM_REGISTERS,
    WARPGROUP,
    Sm90Config,
    choose_config,
)


def test_rows_to_an_expert_choose() raises:
    # 20b: four routed rows a token, 32 experts.
    assert_true(choose_config(4, 32) == DECODE_8)
    assert_true(choose_config(8, 32) == DECODE_8)
    assert_true(choose_config(128, 32) == DECODE_8)
    assert_true(choose_config(129, 32) == DECODE_16)
    assert_true(choose_config(384, 32) == DECODE_16)
    assert_true(choose_config(385, 32) == MIDDLE_64)
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
    # What loading threads give up is all that there is to take.
    var taken = config.consumer_registers() * config.warpgroups
    var kept = PRODUCER_REGISTERS if config.moves_registers() else config.launch_registers()
    var threads = config.launch_registers() * config.threads()
    assert_true(WARPGROUP * taken + config.loading_threads * config.loaders * kept <= threads)
    assert_true(config.blocks * threads <= SM_REGISTERS)


def test_all_configurations_fit() raises:
    _fits[DECODE_8]()
    _fits[DECODE_16]()
    _fits[MLP_8]()
    _fits[MLP_16]()
    _fits[MIDDLE_64]()
    _fits[PREFILL_128]()


def test_worked_sizes() raises:
    # Three warpgroups of a row tile, 128 tokens, three k tiles: 48 KiB of activations, nine tiles of weights.
    assert_equal(PREFILL_128.b_bytes(), 49152)
    assert_equal(PREFILL_128.a_bytes(), 9 * 2176)
    assert_equal(PREFILL_128.row_tiles, 3)
    assert_equal(PREFILL_128.narrow_tokens(), 64)
    assert_equal(DECODE_16.narrow_tokens(), 8)
    assert_equal(DECODE_8.narrow_tokens(), 8)
    assert_equal(PREFILL_128.row_blocks(2880), 15)
    assert_equal(PREFILL_128.launch_registers(), 128)
    # 128 times four warpgroups, less 56, by three.
    assert_equal(PREFILL_128.consumer_registers(), 152)
    # 96 times five warpgroups, less 56, by four, in eights.
    assert_equal(MIDDLE_64.launch_registers(), 96)
    assert_equal(MIDDLE_64.consumer_registers(), 104)
    assert_equal(DECODE_8.row_tiles, 1)
    assert_equal(DECODE_8.sums_bytes(), 64 * 8 * 4)
    # 80 times three warpgroups, less 56, by two, in eights.
    assert_equal(DECODE_16.consumer_registers(), 88)
    # 65536 by two blocks of two warpgroups and 64 loading threads, in eights.
    assert_equal(MLP_16.consumer_registers(), 96)
    assert_equal(MLP_8.consumer_registers(), 64)
    assert_equal(DECODE_16.sums_bytes(), 2 * 64 * 16 * 4)
    assert_equal(DECODE_8.consumer_registers(), 56)
    # Three stages, two barriers of 8 bytes each, and a list of 1022 entries of 16 bytes: 510 experts twice, and the end.
    assert_equal(PREFILL_128.stages, 3)
    assert_equal(PREFILL_128.list_bytes(), 1022 * 16)
    assert_equal(MIDDLE_64.list_bytes(), 512 * 16)
    assert_equal(DECODE_8.list_bytes(), 512 * 16)
    assert_equal(PREFILL_128.shared_bytes(), 3 * (49152 + 9 * 2176 + 16) + 1022 * 16)
    # One token's four rows are four experts' at most; 1024 rows fill eight tiles, beside one of each expert.
    assert_equal(DECODE_8.most_items(4, 32, 2880), 4 * 45)
    assert_equal(PREFILL_128.most_items(1024, 32, 2880), (8 + 32) * 15)
    # Offsets that lie: 0, 1025, 0, 1025, ...
    assert_equal(PREFILL_128.most_items_listed(1025, 32, 2880), 32 * 9 * 15)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
