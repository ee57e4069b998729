"""What of the machine's memory is left, and what is told where weights do not fit into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4 import physical_memory
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES
from gpt_oss_mxfp4.options import DEMO_MODEL, GenerateOptions
from gpt_oss_mxfp4.physical_memory import available_memory, note_memory


def test_available_memory_is_within_a_containers_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    monkeypatch.setattr(physical_memory, "MEMINFO", meminfo)
    monkeypatch.setattr(physical_memory, "CGROUP_LIMIT", limit)
    assert available_memory() > 2**30
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:       8 kB\n")
    assert available_memory() == 8192
    limit.write_text("max\n")
    assert available_memory() == 8192
    limit.write_text("4096\n")
    assert available_memory() == 4096


def notes(available: int, devices: str) -> list[str]:
    told: list[str] = []

    class Notes:
        note = staticmethod(told.append)

    progress: Any = Notes()
    options = GenerateOptions(prompt="x", devices=devices)
    note_memory(open_checkpoint(DEMO_MODEL), options, available, progress)
    return told


def test_weights_that_do_not_stay_in_memory_are_noted() -> None:
    weights = sum(entry.nbytes for entry in open_checkpoint(DEMO_MODEL).entries.values())
    assert notes(ACTIVATION_BYTES + weights, "cpu") == []
    [note] = notes(ACTIVATION_BYTES + weights - 1, "cpu")
    assert note.startswith("weights take 3.91 MB")
    assert "more than the 3.91 MB" in note
    [note] = notes(0, "cpu")
    assert "more than the 0 B of memory" in note
    assert notes(0, "gpu") == []
