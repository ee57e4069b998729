"""Whose the files of a folder are: what a download may replace, and what it has to leave."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint.checksums import note_path
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.own_files import check_own_files
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository

NOW, BEFORE, OTHERS = "1" * 40, "2" * 40, "3" * 40
CONTENT = {"model.safetensors": b"0123456789", "config.json": b"{}[]()"}


class Held(Repository):
    """A repository of two commits and of these files."""

    def __init__(self) -> None:
        self.hub_id = "test/tiny"
        self.files = {
            "model.safetensors": HubFile("model.safetensors", 10, sha256(b"0123456789")),
            "config.json": HubFile("config.json", 6, None, git_sha1(b"{}[]()")),
        }

    def has_commit(self, commit: str) -> bool:
        return commit in (NOW, BEFORE)

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        for position in range(begin, end):
            yield CONTENT[name][position : position + 1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def put(
    path: Path, content: bytes, noted: tuple[str, str] | None = None, *, later: float = -1
) -> None:
    """Writes a file, and what huggingface_hub noted down of it some seconds before or after."""
    path.write_bytes(content)
    if noted is not None:
        note_path(path).parent.mkdir(parents=True, exist_ok=True)
        note_path(path).write_text(f"{noted[0]}\n{noted[1]}\n{time.time()}\n")
    os.utime(path, (time.time() + later, time.time() + later))


def check(folder: Path) -> str:
    """What is said of a folder, or nothing."""
    try:
        check_own_files(Held(), folder, [file.name for file in folder.iterdir() if file.suffix])
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("later", [-1, 1])
@pytest.mark.parametrize("commit", [NOW, BEFORE, OTHERS])
def test_the_repository_s_own_bytes_are_no_matter_wherever_they_come_from(
    tmp_path: Path, commit: str, later: float
) -> None:
    put(tmp_path / "config.json", b"{}[]()")
    weights = b"0123456789"
    put(tmp_path / "model.safetensors", weights, (commit, sha256(weights)), later=later)
    assert check(tmp_path) == ""


@pytest.mark.parametrize("later", [-1, 1])
def test_what_the_repository_had_may_be_replaced(tmp_path: Path, later: float) -> None:
    """A file that was only touched since is what it was."""
    put(tmp_path / "config.json", b"{}", (BEFORE, git_sha1(b"{}")), later=later)
    put(tmp_path / "model.safetensors", b"987", (BEFORE, sha256(b"987")), later=later)
    assert check(tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "content", "noted", "found"),
    [
        ("config.json", b"[]{}()", None, "is another file"),
        ("config.json", b"[]{}()", (NOW, git_sha1(b"{}[]()")), "has changed since it was"),
        ("config.json", b"[]{}()", (BEFORE, git_sha1(b"{}")), "has changed since it was"),
        ("config.json", b"{}", (OTHERS, git_sha1(b"{}")), "is another repository's"),
        ("model.safetensors", b"987654321", None, "is another file"),
        ("model.safetensors", b"0123456798", (NOW, sha256(b"0123456789")), "has changed since"),
        ("model.safetensors", b"01234567890", (NOW, sha256(b"0123456789")), "has changed since"),
        ("model.safetensors", b"987", (OTHERS, sha256(b"987")), "is another repository's"),
        ("other.safetensors", b"987", (OTHERS, sha256(b"987")), "is another repository's"),
        # A text that ends early may be meant to.
        ("config.json", b"{}[]", (NOW, git_sha1(b"{}[]()")), "has changed since it was"),
    ],
)
def test_what_it_never_had_is_refused(
    tmp_path: Path, name: str, content: bytes, noted: tuple[str, str] | None, found: str
) -> None:
    put(tmp_path / name, content, noted, later=1)
    told = check(tmp_path)
    rule = f"{name} must be the repository's or not be there, {found}"
    assert told.startswith(f"{tmp_path}: {rule}")
    assert told.endswith("Name a folder that is not there yet, or move the file out of this one.")


def test_a_file_that_was_moved_here_since_is_refused_though_it_is_older_than_the_note(
    tmp_path: Path,
) -> None:
    """Nor does it help to be as long as the Hub's."""
    for name, content, note in (
        ("config.json", b"[]{}()", (NOW, git_sha1(b"{}[]()"))),
        ("model.safetensors", b"9876543210", (NOW, sha256(b"0123456789"))),
    ):
        put(tmp_path / name, CONTENT[name], note, later=-1)
        put(tmp_path / "mine", content, later=-1000)
        (tmp_path / "mine").rename(tmp_path / name)
    told = check(tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert f"{name} must be the repository's or not be there, has changed since" in told


def test_files_that_nothing_replaces_may_stay(tmp_path: Path) -> None:
    put(tmp_path / "mine.safetensors", b"987")
    put(tmp_path / "old.safetensors", b"changed", (BEFORE, sha256(b"987")), later=1)
    assert check(tmp_path) == ""


@pytest.mark.parametrize("left", [b"", b"0", b"012345678"])
def test_weights_that_were_cut_short_may_be_replaced(tmp_path: Path, left: bytes) -> None:
    put(tmp_path / "model.safetensors", left)
    assert check(tmp_path) == ""


def test_a_folder_or_a_link_that_leads_nowhere_in_place_of_a_file_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").mkdir()
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    told = check(tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert f"{name} must be the repository's or not be there, is another file" in told
