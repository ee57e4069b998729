"""What huggingface_hub noted down of files, and their own checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint.checksums import (
    Checksum,
    Note,
    file_sha256,
    hub_checksum,
    note_path,
    read_note,
)

COMMIT = "0" * 40
SHA256 = "a" * 64


def note_down(file: Path, text: str) -> None:
    note_path(file).parent.mkdir(parents=True)
    note_path(file).write_text(text)


def test_a_note_is_a_commit_a_checksum_and_a_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    assert read_note(file) is None
    note_down(file, f"{COMMIT}\n{SHA256}\n1712656091.123\n")
    assert read_note(file) == Note(COMMIT, Checksum(SHA256), 1712656091.123)
    assert hub_checksum(file) == Checksum(SHA256)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{COMMIT}\n{SHA256}\n",
        f"{COMMIT}\n{SHA256}\nnow\n",
        f"main\n{SHA256}\n1.0\n",
        f"{COMMIT}\n{SHA256}0\n1.0\n",
        f"{COMMIT}\n{SHA256}\n1.0\n\n",
    ],
)
def test_what_is_not_all_three_is_no_note(tmp_path: Path, text: str) -> None:
    note_down(tmp_path / "a", text)
    assert read_note(tmp_path / "a") is None
    assert hub_checksum(tmp_path / "a") is None


def test_a_link_into_the_cache_names_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / SHA256).touch()
    (tmp_path / "a").symlink_to(tmp_path / "blobs" / SHA256)
    assert hub_checksum(tmp_path / "a") == Checksum(SHA256)


def test_a_checksum_is_of_its_bytes_only(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"content")
    for digest in (
        hashlib.sha256(b"content").hexdigest(),
        hashlib.sha1(b"blob 7\0content").hexdigest(),  # as `git hash-object` gives it
    ):
        assert Checksum(digest).is_of(file)
        assert not Checksum(digest[::-1]).is_of(file)


def test_a_file_that_has_changed_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content, time in ((b"before", 1), (b"behind", 2)):
        path.write_bytes(content)
        os.utime(path, (time, time))
        assert file_sha256(path) == hashlib.sha256(content).hexdigest()
