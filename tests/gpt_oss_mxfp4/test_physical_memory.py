"""What of the machine's memory is left, and what is told where a model does not fit into it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt_oss_mxfp4 import physical_memory
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES
from gpt_oss_mxfp4.options import DEMO_MODEL, EngineOptions, Refused
from gpt_oss_mxfp4.physical_memory import available_memory, check_memory
from gpt_oss_mxfp4.quantity import bytes_text

DEMO = open_checkpoint(DEMO_MODEL)
TOKEN = 2048
"""Bytes of the demo model's KV cache for a token: 4 layers, 2 heads of 64 bfloat16, keys and values."""

TABLES = 131_072 * 64 * 4
"""Bytes of its rotations."""


WEIGHTS = sum(entry.nbytes for entry in DEMO.entries.values())


def test_available_memory_is_what_a_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo, groups, limit, stat = (
        tmp_path / name for name in ("meminfo", "groups", "memory.max", "memory.stat")
    )
    monkeypatch.setattr(physical_memory, "MEMINFO", meminfo)
    monkeypatch.setattr(physical_memory, "CGROUP_OF_PROCESS", groups)
    monkeypatch.setattr(physical_memory, "CGROUP", tmp_path)
    assert available_memory() > 2**30
    groups.write_text("0::/\n")
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:       8 kB\n")
    assert available_memory() == 8192
    limit.write_text("max\n")
    assert available_memory() == 8192
    limit.write_text("12288\n")
    for anon, left in ((0, 8192), (8192, 4096), (12000, 288), (13000, 0)):
        stat.write_text(f"anon {anon}\nfile 12288\nanon_thp 7\n")
        assert available_memory() == left


@pytest.mark.parametrize(
    ("group", "root", "limit", "used"),
    [
        ("0::/slice/scope", "", "memory.max", "anon"),
        ("7:cpu:/\n4:memory:/slice/scope\n0::/", "memory", "memory.limit_in_bytes", "total_rss"),
        ("5:cpu,memory:/slice/scope", "memory", "memory.limit_in_bytes", "total_rss"),
    ],
    ids=["version 2", "version 1", "controllers together"],
)
def test_the_tightest_limit_of_the_groups_counts(
    group: str, root: str, limit: str, used: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A group's own, and those of all groups that hold it: a container sees its own as the top, below another name."""
    meminfo, groups = tmp_path / "meminfo", tmp_path / "groups"
    meminfo.write_text("MemAvailable: 1024 kB\n")
    groups.write_text(group + "\n")
    for name, value in {
        "MEMINFO": meminfo,
        "CGROUP_OF_PROCESS": groups,
        "CGROUP": tmp_path / "mounted",
    }.items():
        monkeypatch.setattr(physical_memory, name, value)
    top = tmp_path / "mounted" / root
    inner = top / "slice" / "scope"
    assert available_memory() == 2**20
    for folder, allowed, taken, left in (
        (top, 2**19, 0, 2**19),
        (inner.parent, 2**17, 2**16, 2**16),
        (inner, 2**16, 2**15, 2**15),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{allowed}\n")
        (folder / "memory.stat").write_text(f"{used} {taken}\n")
        assert available_memory() == left


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def check(room: int, tokens: int, **options: Any) -> list[str]:
        """What is noted where so much is left beside activations."""
        told: list[str] = []
        progress: Any = SimpleNamespace(note=told.append)
        monkeypatch.setattr(physical_memory, "available_memory", lambda: ACTIVATION_BYTES + room)
        asked = f"--max-length: {tokens}"
        check_memory(DEMO, EngineOptions(**options), tokens, asked, progress)
        return told

    return check


def test_more_than_there_is_is_refused_with_both_numbers_and_the_cure(
    check: Callable[..., list[str]],
) -> None:
    with pytest.raises(Refused) as refused:
        check(20 * 10**9, 100_000 * 131_072)
    assert str(refused.value) == (
        "--max-length: 13107200000 tokens take 26.8 TB of memory for the KV cache and the rotations, of which this "
        "machine has 20.0 GB left; 9749241 tokens fit"
    )
    assert len(check(20 * 10**9, 9_749_241)) == 1
    with pytest.raises(Refused):
        check(20 * 10**9, 9_749_242)


def test_where_not_a_token_fits_memory_must_be_freed(check: Callable[..., list[str]]) -> None:
    for room, left in ((TABLES + TOKEN - 1, "33.6 MB"), (-1, "0 B"), (-(2**40), "0 B")):
        with pytest.raises(Refused, match=f"has {left} left; it needs more free memory$"):
            check(room, 1)


def test_what_fits_passes_and_what_weights_have_no_room_beside_is_noted(
    check: Callable[..., list[str]],
) -> None:
    needed = 1000 * TOKEN + TABLES
    assert check(needed + WEIGHTS, 1000) == []
    for room in (needed + WEIGHTS - 1, needed):
        [note] = check(room, 1000)
        assert note.startswith(
            "weights take 3.91 MB and the KV cache with the rotations 35.6 MB, more than the "
        )


def test_a_cache_of_float32_takes_twice_as_much(check: Callable[..., list[str]]) -> None:
    needed = 2000 * TOKEN + TABLES
    assert check(needed + WEIGHTS, 1000, activations="float32") == []
    with pytest.raises(Refused):
        check(needed - 1, 1000, activations="float32")


@pytest.mark.parametrize(("dense_weights", "scale_bytes"), [("int8", 2), ("mxfp8", 1)])
def test_rounded_weights_are_no_pages_of_a_file(
    check: Callable[..., list[str]], dense_weights: str, scale_bytes: int
) -> None:
    names = re.compile(r"model\.layers\.\d+\.self_attn\.[qkvo]_proj\.weight|lm_head\.weight")
    rounded = [entry for name, entry in DEMO.entries.items() if names.fullmatch(name)]
    assert len(rounded) >= 4 * 4
    from_file = sum(entry.nbytes for entry in rounded)
    elements = from_file // 2
    made = elements + elements // 32 * scale_bytes
    needed = 1000 * TOKEN + TABLES
    [note] = check(needed + made, 1000, dense_weights=dense_weights)
    assert f"weights take {bytes_text(WEIGHTS - from_file)} " in note
    assert check(needed + made + WEIGHTS - from_file, 1000, dense_weights=dense_weights) == []
    with pytest.raises(Refused):
        check(needed + made - 1, 1000, dense_weights=dense_weights)


def test_a_gpus_memory_is_maxs_to_plan(check: Callable[..., list[str]]) -> None:
    assert check(-(2**40), 10**9, devices="gpu") == []
