"""A checkpoint of the published sizes that takes no space: right headers, and holes for data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.make_synthetic import Sizes, list_tensors, write_metadata, write_tokenizer


def make_sparse_checkpoint(folder: Path, sizes: Sizes) -> Path:
    """Writes what compiling and planning read.

    Args:
        folder: made.
        sizes: of the model.

    Returns:
        The folder. Its weights are zeros that the file system does not store.
    """
    folder.mkdir()
    header: dict[str, Any] = {}
    end = 0
    for tensor in list_tensors(sizes):
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    write_metadata(folder, sizes)
    write_tokenizer(folder)
    return folder
