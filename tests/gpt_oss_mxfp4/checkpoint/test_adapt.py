"""Graph weights are the checkpoint's tensors, where they lie in its files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from max.driver import Buffer
from max.dtype import DType

from gpt_oss_mxfp4.checkpoint.adapt import adapt
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from tests.golden import CHECKPOINT


def test_every_tensor_keeps_name_dtype_shape_and_bytes() -> None:
    checkpoint = open_checkpoint(CHECKPOINT)
    weights = adapt(checkpoint)
    assert weights.keys() == checkpoint.entries.keys()
    dtypes = {"BF16": DType.bfloat16, "U8": DType.uint8}
    for name, entry in checkpoint.entries.items():
        data = Buffer.from_dlpack(weights[name].data)
        assert (data.dtype, tuple(data.shape)) == (dtypes[entry.dtype], entry.shape)
        raw = entry.file.read_bytes()[entry.begin : entry.end]
        assert data.view(DType.uint8, [len(raw)]).to_numpy().tobytes() == raw, name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_bytes_stay_in_the_mapped_file() -> None:
    checkpoint = open_checkpoint(CHECKPOINT)
    weights = adapt(checkpoint)
    mapped = [
        tuple(int(address, 16) for address in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(".safetensors")
    ]
    for name, weight in weights.items():
        address = Buffer.from_dlpack(weight.data)._data_ptr()
        assert any(begin <= address < end for begin, end in mapped), name
