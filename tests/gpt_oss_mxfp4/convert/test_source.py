"""Reading a source: what is asked for, or an error that names the file."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.index import read_header
from gpt_oss_mxfp4.convert.source import Source
from tests.gpt_oss_mxfp4.checkpoint.small import raw_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    header = (
        b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
        b'"b":{"dtype":"U8","shape":[5],"data_offsets":[3,8]}}'
    )
    path.write_bytes(raw_file(header, bytes(range(8))))
    return path


def test_bytes_are_counted_from_a_tensor_s_own_beginning(file: Path) -> None:
    entries = read_header(file)
    with Source([file]) as source:
        assert source.read(entries["b"], 1, 4).tolist() == [4, 5, 6]
        assert source.read(entries["a"], 0, 3).tolist() == [0, 1, 2]
        empty = source.read(entries["a"], 2, 2)
    assert empty.dtype == np.uint8
    assert empty.size == 0


def test_a_file_that_became_shorter_is_named(file: Path) -> None:
    entries = read_header(file)
    with Source([file]) as source:
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(CheckpointError) as error:
            source.read(entries["b"], 0, 5)
    assert str(error.value).startswith(
        f"{file}: cannot be read (it became shorter while it was read). "
    )


def test_a_file_that_cannot_be_read_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(FileIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("gpt_oss_mxfp4.convert.source.FileIO", Bad)
    with Source([file]) as source, pytest.raises(CheckpointError) as error:
        source.read(read_header(file)["b"], 0, 5)
    assert str(error.value).startswith(f"{file}: cannot be read (Input/output error). ")


def test_files_are_closed_at_the_end_and_where_another_cannot_be_opened(file: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Source([file]) as source:
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(CheckpointError) as error:
        Source([file, file.with_name("zzz")])
    assert os.listdir("/proc/self/fd") == before
    del source, error


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone: cannot be read \(No such file"):
        Source([tmp_path / "gone"])


def test_an_identity_changes_with_size_time_and_header(file: Path) -> None:
    def identity() -> object:
        with Source([file]) as source:
            return source.identity()

    first, data = identity(), file.read_bytes()
    status = file.stat()
    assert identity() == first
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert identity() != first
    file.write_bytes(data.replace(b'"a"', b'"c"'))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identity() != first
    file.write_bytes(data + b"x")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identity() != first
    file.write_bytes(data[:-1] + b"x")  # of tensors no byte is read
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identity() == first


def test_the_identity_of_a_file_that_is_rewritten_meanwhile_costs_a_bounded_memory(
    file: Path,
) -> None:
    with Source([file]) as source:
        before = source.identity()
        with file.open("r+b") as stream:
            stream.write((2**63 - 1).to_bytes(8, "little"))
        assert source.identity() != before


def test_a_file_whose_identity_cannot_be_read_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with Source([file]) as source:
        monkeypatch.setattr(os, "fstat", fail)
        with pytest.raises(CheckpointError) as error:
            source.identity()
        monkeypatch.undo()
    assert str(error.value).startswith(f"{file}: cannot be read (Input/output error). ")
