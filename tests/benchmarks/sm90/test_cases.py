"""What all sides of the comparison share: routing, what is counted, a line of the table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sm90.cases import (
    GPT_OSS_20B,
    HEADER,
    TOKENS,
    Sizes,
    draw_routing,
    format_case,
    summarize,
)


@pytest.mark.parametrize("tokens", TOKENS)
def test_each_token_goes_to_different_experts_and_rows_are_sorted(tokens: int) -> None:
    routing = draw_routing(tokens)
    assert routing.offsets[0] == 0
    assert routing.offsets[-1] == 4 * tokens
    assert np.array_equal(np.sort(routing.order), np.arange(4 * tokens))
    of_row = np.repeat(np.arange(32), routing.counts)
    ids = np.empty(4 * tokens, int)
    ids[routing.order] = of_row
    assert all(len(set(row)) == 4 for row in ids.reshape(tokens, 4).tolist())
    # Rows of an expert are in token order.
    assert (np.diff(routing.order)[np.diff(of_row) == 0] > 0).all()


def test_a_case_is_routed_the_same_in_every_process_and_after_any_other() -> None:
    assert draw_routing(4).order.tolist() == [10, 5, 3, 12, 9, 15, 2, 0, 14, 1, 7, 6, 8, 4, 11, 13]
    first = draw_routing(16).order
    draw_routing(64)
    assert np.array_equal(draw_routing(16).order, first)


def test_bytes_are_each_touched_experts_once_and_two_operations_are_a_product() -> None:
    sizes = Sizes(experts=2, top_k=1, hidden=64, inner=32)
    touched = draw_routing(3, sizes).touched
    assert summarize(3, [2e-6, 4e-6, 3e-6], sizes) == {
        "tokens": 3,
        "experts": touched,
        "us": [pytest.approx(2), pytest.approx(3), pytest.approx(4)],
        # 64 rows of 64 in the first matmul, 64 of 32 in the second; a block of 32 has 17 bytes.
        "GB_per_s": pytest.approx(touched * (64 * 64 + 64 * 32) / 32 * 17 / 3e-6 / 1e9),
        "TFLOP_per_s": pytest.approx(3 * 2 * (64 * 64 + 64 * 32) / 3e-6 / 1e12),
    }


def test_a_layer_of_20b_at_one_token_reads_53_megabytes() -> None:
    case = summarize(1, [1.0])
    assert case["GB_per_s"] == 4 * 3 * 2880 * 2880 * 17 / 32 / 1e9
    assert GPT_OSS_20B.weights * 2 * 4 / 1e12 == case["TFLOP_per_s"]


def test_a_line_stands_under_its_header() -> None:
    case = {
        "tokens": 64,
        "experts": 32,
        "us": [150.0, 151.25, 160.0],
        "GB_per_s": 2796.0,
        "TFLOP_per_s": 84.0,
    }
    roofs = {"copy_GB_per_s": 2796 / 0.9, "matmul_TFLOP_per_s": 840.0}
    line = "    64      32      150.0  151.2  160.0    2796     90%      84.0       10%"
    assert format_case(case, roofs) == line
    assert format_case(case, None) == line.replace("90%", "   ").replace("10%", "   ")
    assert HEADER.index("tokens") + len("tokens") == line.index("64") + 2
