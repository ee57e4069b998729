"""Downloads without a network: what is hashed, how a failure stops the others, and another process's files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.checksums import DOWNLOADS
from gpt_oss_mxfp4.checkpoint.download import Downloads
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository, hub_errors

BYTES = b"0123456789"


class Served(Repository):
    """A repository whose files come from a function."""

    def __init__(self, *names: str) -> None:
        self.hub_id, self.commit = "test/tiny", "1" * 40
        self.files = {
            name: HubFile(name, len(BYTES), hashlib.sha256(BYTES).hexdigest()) for name in names
        }
        self.asked: list[tuple[str, int]] = []

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append((name, begin))
        yield BYTES[begin:end]


def downloads(repository: Served, output: Path) -> Downloads:
    return Downloads(repository, repository.files.values(), output)


def ignore(nbytes: int) -> None:
    """Nobody looks at the bar."""


def test_a_wrong_file_of_the_right_size_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = hashlib.file_digest

    def count(stream: Any, name: str) -> Any:
        hashed.append(stream.name)
        return real(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", count)
    (tmp_path / "a.safetensors").write_bytes(b"x" * len(BYTES))
    downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
    assert (tmp_path / "a.safetensors").read_bytes() == BYTES
    assert hashed == [str(tmp_path / "a.safetensors")]


def test_a_file_of_which_a_pull_has_noted_the_checksum_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Served("a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(BYTES)
    note_down(tmp_path, hashlib.sha256(BYTES).hexdigest())
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert downloads(repository, tmp_path).nbytes == 0


def test_what_was_noted_down_of_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    """By it huggingface_hub would take the new one for the old and fetch it once more; without one it would hash it."""
    (tmp_path / "a.safetensors").write_bytes(b"x" * len(BYTES))
    note = note_down(tmp_path, hashlib.sha256(b"x" * len(BYTES)).hexdigest())
    downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
    assert (tmp_path / "a.safetensors").read_bytes() == BYTES
    assert note.read_text().startswith(f"{'1' * 40}\n{hashlib.sha256(BYTES).hexdigest()}\n")
    assert downloads(Served("a.safetensors"), tmp_path).nbytes == 0


def test_a_file_that_has_changed_since_its_checksum_was_noted_is_fetched(tmp_path: Path) -> None:
    note_down(tmp_path, hashlib.sha256(BYTES).hexdigest())
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * len(BYTES))
    os.utime(path, (time.time() + 1, time.time() + 1))
    repository = Served("a.safetensors")
    downloads(repository, tmp_path).fetch(ignore)
    assert path.read_bytes() == BYTES
    assert repository.asked == [("a.safetensors", 0)]


def test_a_file_that_was_copied_since_its_checksum_was_noted_is_not_fetched(tmp_path: Path) -> None:
    note_down(tmp_path, hashlib.sha256(b"x" * len(BYTES)).hexdigest())
    path = tmp_path / "a.safetensors"
    path.write_bytes(BYTES)
    os.utime(path, (time.time() + 1, time.time() + 1))
    assert downloads(Served("a.safetensors"), tmp_path).nbytes == 0


def note_down(folder: Path, sha256: str) -> Path:
    """Writes what huggingface_hub writes beside a file: commit, checksum, time."""
    note = folder / DOWNLOADS / "a.safetensors.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{'0' * 40}\n{sha256}\n{time.time()}\n")
    return note


def test_a_file_that_another_process_finished_just_before_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Served("a.safetensors")
    wanted = downloads(repository, tmp_path)
    real = Path.open

    def open_late(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode == "a+b":
            (tmp_path / "a.safetensors").write_bytes(BYTES)
        return real(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", open_late)
    told: list[int] = []
    wanted.fetch(told.append)
    assert repository.asked == []
    assert sum(told) == len(BYTES)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (b"", [0]),
        (BYTES[:4], [4]),
        (b"x" * 4, [4, 0]),
        (BYTES, [10]),
        (b"x" * 10, [10, 0]),
        (b"x" * 11, [0]),
    ],
)
def test_what_is_left_of_an_earlier_attempt_is_gone_on_with_where_it_is_sound(
    tmp_path: Path, left: bytes, asked: list[int]
) -> None:
    repository = Served("a.safetensors")
    leave(tmp_path, left)
    told: list[int] = []
    wanted = downloads(repository, tmp_path)
    assert wanted.done_bytes == (len(left) if len(left) <= len(BYTES) else 0)
    wanted.fetch(told.append)
    assert (tmp_path / "a.safetensors").read_bytes() == BYTES
    assert repository.asked == [("a.safetensors", begin) for begin in asked]
    assert wanted.done_bytes + sum(told) == wanted.nbytes == len(BYTES)
    assert not list(tmp_path.rglob("*.part"))


def test_what_another_process_has_fetched_meanwhile_is_counted(tmp_path: Path) -> None:
    repository = Served("a.safetensors")
    leave(tmp_path, BYTES[:4])
    wanted = downloads(repository, tmp_path)
    leave(tmp_path, BYTES[:7])
    told: list[int] = []
    wanted.fetch(told.append)
    assert repository.asked == [("a.safetensors", 7)]
    assert (wanted.done_bytes, sum(told)) == (4, 6)


def leave(folder: Path, content: bytes) -> None:
    """Puts a partial file where an earlier attempt would have."""
    name = f"a.safetensors.{hashlib.sha256(BYTES).hexdigest()}.part"
    (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    (folder / DOWNLOADS / name).write_bytes(content)


def test_room_is_asked_for_what_is_still_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2**28 + 5

    leave(tmp_path, BYTES[:4])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(CheckpointError, match="must have 268 MB free"):
        downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
    Usage.free = 2**28 + 6
    downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
    assert (tmp_path / "a.safetensors").read_bytes() == BYTES


def test_the_first_failure_stops_the_other_files(tmp_path: Path) -> None:
    """The first file never ends by itself; the second fails once the first has begun."""
    begun = threading.Event()
    pieces = 0

    class Endless(Served):
        def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
            nonlocal pieces
            if name == "b.safetensors":
                assert begun.wait(60)
                raise OSError("no network")
            for pieces in range(6000):  # noqa: B007  (a minute, if nothing stops it)
                yield b""
                begun.set()
                threading.Event().wait(0.01)

    with pytest.raises(OSError, match="no network"):
        downloads(Endless("a.safetensors", "b.safetensors"), tmp_path).fetch(ignore)
    assert pieces < 5999


def test_too_little_room_has_a_cure_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(CheckpointError) as error:
        downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
    assert str(error.value) == (
        f"test/tiny: {tmp_path / DOWNLOADS} must have 268 MB free, has 1.00 kB. Make room there, or pull it"
        " to another disk: gpt-oss-mxfp4 pull HUB_ID --output DIR."
    )


def test_a_place_that_cannot_be_locked_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(
            CheckpointError, match=r"cannot be downloaded to .*part \(No locks available\)"
        ),
        hub_errors("test/tiny"),
    ):
        downloads(Served("a.safetensors"), tmp_path).fetch(ignore)
