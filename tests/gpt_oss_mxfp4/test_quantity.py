"""Bytes and times as text."""

from __future__ import annotations

import pytest

from gpt_oss_mxfp4.quantity import bytes_text, count_text, duration_text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_960, "1.00 MB"),
        (13_761_264_768, "13.8 GB"),
        (65_248_815_744, "65.2 GB"),
        (10**16, "10000 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(nbytes: int, text: str) -> None:
    assert bytes_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7384, "2:03:04")],
)
def test_times_are_as_short_as_they_are_clear(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_one_thing_is_no_plural() -> None:
    assert [count_text(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
