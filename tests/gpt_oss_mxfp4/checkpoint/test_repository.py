"""Ranges of a repository's files: what is asked for again, and when that ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder

from gpt_oss_mxfp4.checkpoint import repository
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hub import taken_for_hub_id
from gpt_oss_mxfp4.checkpoint.repository import (
    MAKE_ROOM,
    MOST_FILES,
    RETRIES,
    HubFile,
    Repository,
    hub_errors,
)
from tests.gpt_oss_mxfp4.checkpoint.hub_stand_in import COMMIT

PERMISSIONS = (
    "Check the permissions there, or name another folder: by HF_HOME, or by pull's --output"
)


class Flaky(Repository):
    """Serves ``content``, a few bytes to a request, and fails after each of them."""

    def __init__(self, content: bytes, pieces: Iterator[int]) -> None:
        self.content = content
        self.pieces = pieces
        self.asked: list[tuple[int, int]] = []

    def _request(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append((begin, end))
        if count := next(self.pieces):
            yield self.content[begin : min(begin + count, end)]
        if begin + count < end:
            raise ConnectionResetError(0, "the connection ended early")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr("gpt_oss_mxfp4.checkpoint.repository.time.sleep", seconds.append)
    return seconds


def test_each_request_begins_where_the_last_one_ended(slept: list[float]) -> None:
    flaky = Flaky(b"0123456789", iter((3, 0, 4, 5)))
    assert b"".join(flaky.read("a", 1, 9)) == b"12345678"
    assert flaky.asked == [(1, 9), (4, 9), (4, 9), (8, 9)]


def test_a_server_that_sends_nothing_is_given_up_after_some_waiting(slept: list[float]) -> None:
    flaky = Flaky(b"0123456789", iter((3, *[0] * 100)))
    received = []
    with pytest.raises(CheckpointError) as caught, hub_errors("owner/name"):
        received += list(flaky.read("a", 0, 10))
    assert str(caught.value).startswith(
        "owner/name: cannot be downloaded (the connection ended early). Check the id"
    )
    assert len(flaky.asked) == 1 + RETRIES
    assert slept == sorted(slept)
    assert sum(slept) < 30


@pytest.mark.parametrize(
    ("number", "place", "cure"),
    [
        (errno.ENOSPC, None, MAKE_ROOM),
        (errno.EDQUOT, None, MAKE_ROOM),
        (errno.EFBIG, None, MAKE_ROOM),
        (errno.ENOSPC, "/a", MAKE_ROOM),
        (errno.EACCES, "/a", PERMISSIONS),
        (errno.EROFS, "/a", PERMISSIONS),
        (errno.ENOTDIR, "/a", PERMISSIONS),
    ],
)
def test_what_the_disk_refuses_is_not_told_of_the_network(
    number: int, place: str | None, cure: str
) -> None:
    text = os.strerror(number)
    with pytest.raises(CheckpointError) as caught, taken_for_hub_id(), hub_errors("owner/name"):
        raise OSError(number, text, place)
    told = f"owner/name: cannot be downloaded to {place or 'the disk'} ({text}). {cure}."
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionResetError(0, "the server answers 503"), "the server answers 503"),
        (
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            "[Errno 104] Connection reset by peer",
        ),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), "[Errno 110] timed out"),
        (OSError(errno.ENETUNREACH, "unreachable"), "[Errno 101] unreachable"),
        (FileNotFoundError(errno.ENOENT, "no certificate"), "[Errno 2] no certificate"),
        (LocalEntryNotFoundError("Cannot find it"), "Cannot find it"),
        (OSError("Consistency check failed"), "Consistency check failed"),
    ],
)
def test_what_the_hub_and_the_network_refuse_is_told_of_them(error: OSError, cause: str) -> None:
    with pytest.raises(CheckpointError) as caught, hub_errors("owner/name"):
        raise error
    told = f"owner/name: cannot be downloaded ({cause}). Check the id, the revision and the network"
    assert str(caught.value).startswith(told)


def test_bytes_that_come_renew_patience(slept: list[float]) -> None:
    content = bytes(range(100))
    flaky = Flaky(content, iter([1, 0, 0] * 100))
    assert b"".join(flaky.read("a", 0, 100)) == content


def listed(monkeypatch: pytest.MonkeyPatch, items: Iterable[object]) -> Repository:
    """A repository of which the Hub lists these files and folders."""

    class Api:
        def repo_info(self, hub_id: str, revision: str) -> SimpleNamespace:
            assert revision == "main"
            return SimpleNamespace(sha=COMMIT)

        def list_repo_tree(self, hub_id: str, *, recursive: bool, revision: str) -> object:
            assert (recursive, revision) == (True, COMMIT)
            return iter(items)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return Repository("test/tiny")


def test_a_commit_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Api:
        def repo_info(self, hub_id: str, revision: str) -> SimpleNamespace:
            asked.append(revision)
            if revision == "f" * 40:
                request = httpx.Request("GET", "http://hub")
                raise RevisionNotFoundError("no", response=httpx.Response(404, request=request))
            return SimpleNamespace(sha=COMMIT)

        def list_repo_tree(self, hub_id: str, *, recursive: bool, revision: str) -> list[object]:
            return []

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    of_hub = Repository("test/tiny")
    for commit, known in ((COMMIT, True), ("e" * 40, True), ("f" * 40, False)):
        assert [of_hub.has_commit(commit) for _ in range(2)] == [known, known]
    assert asked == ["main", "e" * 40, "f" * 40]


def file(path: str, lfs: str | None = None) -> RepoFile:
    large = None if lfs is None else {"oid": lfs, "size": 4, "pointerSize": 134}
    return RepoFile(path=path, size=4, oid="1" * 40, lfs=large)


def test_what_the_hub_lists_is_believed_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checksum becomes the name of a file here."""
    items = [
        file("small"),
        file("a/large", "a" * 64),
        file("wrong", "../" + "a" * 61),
        file("long", "a" * 65),
        file("../outside"),
        RepoFolder(path="a", oid="1" * 40),
    ]
    files = listed(monkeypatch, items).files
    assert files == {
        "small": HubFile("small", 4, None, "1" * 40),
        "a/large": HubFile("a/large", 4, "a" * 64, "1" * 40),
        "wrong": HubFile("wrong", 4, None, "1" * 40),
        "long": HubFile("long", 4, None, "1" * 40),
    }


def test_a_repository_of_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(listed(monkeypatch, map(file, map(str, range(MOST_FILES)))).files) == MOST_FILES
    with pytest.raises(ValueError, match="it has more than 10000 files"):
        listed(monkeypatch, map(file, map(str, range(MOST_FILES + 1))))


@pytest.mark.parametrize("path", ["a", "a/b.safetensors", "ä/ö", ".gitattributes", "a..b"])
def test_a_path_below_the_root_is_taken(path: str) -> None:
    assert repository._stays_below(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "..", "../a", "a/../../b", "a/..", "a\\b", "C:\\a", "a\0", "a\nb"]
)
def test_a_path_that_leaves_the_root_or_cannot_be_printed_is_not(path: str) -> None:
    assert not repository._stays_below(path)
