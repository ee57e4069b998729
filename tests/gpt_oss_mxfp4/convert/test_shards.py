"""Files of the output: which tensors, in what order, and the header's very bytes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.convert.plan import CHUNK_BYTES, Bytes, Output, copied, gathered, split
from gpt_oss_mxfp4.convert.shards import Shard, index_text, make_shards


def output(name: str, nbytes: int) -> Output:
    return Output(name, "U8", (nbytes,), ())


def test_a_file_takes_tensors_in_order_while_they_fit() -> None:
    sizes = {"a": 4, "b": 5, "c": 1, "d": 11, "e": 9, "f": 2, "g": 8}
    shards = make_shards([output(name, n) for name, n in sizes.items()], limit=10)
    assert [[o.name for o in shard.outputs] for shard in shards] == [
        ["a", "b", "c"],
        ["d"],
        ["e"],
        ["f", "g"],
    ]
    assert shards[1].name == "model-00002-of-00004.safetensors"


def test_the_header_is_what_the_format_says() -> None:
    outputs = (Output("a", "BF16", (2, 3), ()), Output("b", "U8", (5,), ()))
    text = (
        b'{"__metadata__":{"format":"pt"},'
        b'"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
        b'"b":{"dtype":"U8","shape":[5],"data_offsets":[12,17]}}'
    )
    shard = Shard("x", outputs)
    padded = -(-len(text) // 8) * 8
    assert shard.header == padded.to_bytes(8, "little") + text.ljust(padded)
    assert shard.nbytes == 8 + padded + 17


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    shard = Shard("x", (Output("a", "U8", (2, 3), ()), Output("b", "BF16", (0, 4), ())))
    path = tmp_path / "x.safetensors"
    path.write_bytes(shard.header + bytes(range(6)))
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        np.testing.assert_array_equal(file.get_tensor("a"), [[0, 1, 2], [3, 4, 5]])
        assert file.get_slice("b").get_shape() == [0, 4]


def test_the_index_names_the_file_of_each_tensor_and_the_bytes_of_all() -> None:
    index = json.loads(index_text(make_shards([output("b", 3), output("a", 4)], limit=3)))
    assert index == {
        "metadata": {"total_size": 7},
        "weight_map": {
            "a": "model-00002-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
        },
    }
    assert list(index["weight_map"]) == ["a", "b"]


def test_a_copy_is_read_in_chunks_that_memory_holds() -> None:
    """A tensor of any size costs no more than a chunk of memory."""
    size = 3 * CHUNK_BYTES + 5
    entry = TensorEntry("a", "U8", (size,), Path("x"), 100, 100 + size)
    asked: list[tuple[int, int]] = []

    def read(_: TensorEntry, begin: int, end: int) -> Bytes:
        asked.append((begin, end))
        return np.empty(0, np.uint8)

    for _ in copied(entry, 2).make(read):
        pass
    assert asked[0] == (2, 2 + CHUNK_BYTES)
    assert asked[-1] == (2 + 3 * CHUNK_BYTES, size)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(asked))


def test_pieces_of_a_split_tensor_are_its_rows() -> None:
    data = np.arange(24, dtype=np.uint8)
    entry = TensorEntry("a", "U8", (4, 6), Path("x"), 0, 24)
    pieces = split(entry, 4)
    rows = [gathered(piece, lambda _, begin, end: data[begin:end]) for piece in pieces]
    np.testing.assert_array_equal(rows, data.reshape(4, 6))
