"""Hollow copies: which bytes of a repository are asked for, and that the rest are holes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint import hollow
from gpt_oss_mxfp4.checkpoint.hollow import make_hollow
from gpt_oss_mxfp4.checkpoint.index import MAX_HEADER_BYTES
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository
from gpt_oss_mxfp4.checkpoint.strict_json import MAX_FILE_BYTES
from tests.gpt_oss_mxfp4.checkpoint.small import raw_file

HEADER = b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'


class Held(Repository):
    """A repository of these files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.hub_id, self._content = "test/tiny", files
        self.files = {name: HubFile(name, len(data), None) for name, data in files.items()}
        self.asked: list[tuple[str, int, int]] = []

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append((name, begin, end))
        yield self._content[name][begin:end]


@pytest.mark.parametrize("first", [8, 61, 62, 1000])
def test_headers_and_config_are_copied_and_all_else_is_a_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(hollow, "FIRST_BYTES", first)
    weights = raw_file(HEADER, b"123456789")
    files = {
        "config.json": b"{}",
        "model.safetensors.index.json": b'{"weight_map":{}}',
        "model.safetensors": weights,
        "original/deep/model.safetensors": weights,
        ".model.safetensors": weights,
        "tokenizer.json": b"{}",
    }
    held = Held(files)
    make_hollow(held, tmp_path)
    header = weights[:-9]
    copied = dict(list(files.items())[:2]) | {"model.safetensors": header}
    for name, data in files.items():
        assert (tmp_path / name).read_bytes() == copied.get(name, b"").ljust(len(data), b"\0")
    ends = {name: end for name, _, end in held.asked}
    assert set(ends) == set(copied)
    assert ends["model.safetensors"] == min(max(len(header), first), len(weights))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        raw_file(b"{}", length=3),
        raw_file(b"{}" + bytes(100), length=MAX_HEADER_BYTES + 1),
    ],
)
def test_a_header_that_cannot_be_is_left_to_its_reader(tmp_path: Path, content: bytes) -> None:
    held = Held({"model.safetensors": content})
    make_hollow(held, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == content
    assert held.asked == [("model.safetensors", 0, len(content))]


def test_no_more_of_a_config_is_copied_than_is_read(tmp_path: Path) -> None:
    held = Held({"config.json": bytes(MAX_FILE_BYTES + 2)})
    make_hollow(held, tmp_path)
    assert held.asked == [("config.json", 0, MAX_FILE_BYTES + 1)]
    assert (tmp_path / "config.json").stat().st_size == MAX_FILE_BYTES + 2
