"""Statistics of scales against NumPy on whole tensors; no other byte is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.layout import PROJECTIONS
from gpt_oss_mxfp4.checkpoint.scale_statistics import (
    read_scale_statistics,
    scale_entries,
)
from tests.golden import CHECKPOINT


def test_statistics_are_numpys() -> None:
    entries = open_checkpoint(CHECKPOINT).entries
    counted: list[int] = []
    found = read_scale_statistics(entries, counted.append)
    assert sum(counted) == sum(e.nbytes for n, e in entries.items() if n.endswith("_scales"))
    for entry in scale_entries(entries):
        data = np.frombuffer(entry.file.read_bytes()[entry.begin : entry.end], np.uint8)
        experts = data.reshape(entry.shape[0], -1).astype(int)
        layer = int(entry.name.split(".")[2])
        of = found[next(p for p in PROJECTIONS if p in entry.name)]
        np.testing.assert_allclose(of.mean[layer], experts.mean(1) - 127, rtol=1e-12)
        np.testing.assert_array_equal(of.largest[layer], experts.max(1) - 127)
        np.testing.assert_allclose(of.zero_share[layer], (experts == 0).mean(1))


def test_layers_come_in_order_of_their_numbers() -> None:
    names = [entry.name for entry in scale_entries(open_checkpoint(CHECKPOINT).entries)]
    assert [int(name.split(".")[2]) for name in names] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    entries = open_checkpoint(folder).entries
    file = scale_entries(entries)[-1].file
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        CheckpointError, match=r"cannot be read to its end \(the file became shorter\)"
    ):
        read_scale_statistics(entries, lambda nbytes: None)
