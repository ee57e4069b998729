"""A KV cache that the machine has no memory for is refused before MAX is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import DEMO_MODEL, Refused
from gpt_oss_mxfp4.serving.memory import check_memory
from gpt_oss_mxfp4.serving.options import ServeOptions

DEMO = open_checkpoint(DEMO_MODEL)
TOKEN = 2048
"""Bytes of the demo model's KV cache for a token: 4 layers, 2 heads of 64 bfloat16, keys and values."""

ROOM = 2**30
"""Left for activations."""


class Notes:
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def check(available: int, **options: Any) -> list[str]:
    notes: Any = Notes()
    check_memory(DEMO, ServeOptions(**options), available, notes)
    told: list[str] = notes.told
    return told


def test_more_than_there_is_is_refused_with_both_numbers_and_the_cure() -> None:
    with pytest.raises(Refused) as refused:
        check(20 * 10**9, max_batch_size=100_000, max_length=131_072)
    assert str(refused.value) == (
        "--max-batch-size, --max-length: the KV cache of 100000 sequences of 131072 tokens takes 26.8 TB, of which "
        "this machine has 18.9 GB left; 70 of that length fit"
    )


def test_a_sequence_that_does_not_fit_alone_is_to_be_shorter() -> None:
    with pytest.raises(Refused, match=r"1 sequences of 1000 tokens.*; take a smaller --max-length"):
        check(ROOM + 1000 * TOKEN - 1, max_batch_size=1, max_length=1000)


def test_what_fits_passes_and_what_weights_have_no_room_beside_is_noted() -> None:
    assert check(ROOM + 2**30) == []
    [note] = check(ROOM + 1000 * TOKEN, max_batch_size=1, max_length=1000)
    assert "weights take" in note
    assert "KV cache up to 2.05 MB" in note


def test_a_cache_of_float32_takes_twice_as_much() -> None:
    [note] = check(ROOM + 2000 * TOKEN, max_batch_size=1, max_length=1000, activations="float32")
    assert "KV cache up to 4.10 MB" in note
    with pytest.raises(Refused):
        check(ROOM + 2000 * TOKEN - 1, max_batch_size=1, max_length=1000, activations="float32")


def test_a_gpus_memory_is_maxs_to_plan() -> None:
    assert check(0, devices="gpu", max_batch_size=100_000) == []
