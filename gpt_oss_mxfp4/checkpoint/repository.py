"""A repository of the Hub: its files' names, sizes and checksums, and ranges of their bytes.

huggingface_hub answers questions and downloads whole files; a range of a file is asked for here.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, one_line, quoted
from gpt_oss_mxfp4.checkpoint.layout import is_weight_file

MOST_FILES = 10_000
"""Files of a repository that are looked at."""

DOWNLOAD_FAILED = "download failed"
"""The kind of fault that ``hub_errors`` makes of what the Hub or the network says."""

MAKE_ROOM = "Make room there, or pull it to another disk: gpt-oss-mxfp4 pull HUB_ID --output DIR"
"""The cure where a disk is full."""

RETRIES = 5
"""Attempts in a row that may bring no byte."""

_BUSY = (408, 429, 500, 502, 503, 504)
"""Answers that another attempt may not get."""

NO_ROOM = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)
"""Numbers of the file system's errors where there is too little room."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Args:
        name: Its path, parts joined by ``/``, below the root for certain.
        nbytes: Its size.
        sha256: Its checksum, or None where it is small and git's alone is known.
        git_sha1: The name that git gives the bytes of a small file.
    """

    name: str
    nbytes: int
    sha256: str | None
    git_sha1: str | None = None

    @property
    def digest(self) -> str | None:
        """What the Hub's etag is: the SHA-256, or git's name of a small file."""
        return self.sha256 or self.git_sha1

    @property
    def is_weights(self) -> bool:
        """Whether it is a weight file."""
        return is_weight_file(self.name)


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Turns what huggingface_hub, the network and the disk raise into a CheckpointError, the disk's of another kind."""
    from httpx import HTTPError

    try:
        yield
    except CheckpointError:
        raise
    except (HTTPError, OSError, ValueError) as error:  # every error of huggingface_hub is one
        if isinstance(error, OSError) and _is_of_the_disk(error):
            raise CheckpointError(hub_id, [_disk_fault(error)]) from error
        cause = _cause(error)
        cure = (
            "Check the id, the revision and the network; a private or gated repository needs"
            " `hf auth login`. Where there is no network, give a local folder"
        )
        fault = Fault(DOWNLOAD_FAILED, f"cannot be downloaded ({quoted(cause)})", cure)
        raise CheckpointError(hub_id, [fault]) from error


def _is_of_the_disk(error: OSError) -> bool:
    """Whether the file system here raised it, which names the file unless it was open already."""
    return error.filename is not None or error.errno in NO_ROOM


def _disk_fault(error: OSError) -> Fault:
    place = "the disk" if error.filename is None else error.filename
    text = f"cannot be downloaded to {place} ({error.strerror})"
    if error.errno in NO_ROOM:
        return Fault("no room", text, MAKE_ROOM)
    cure = "Check the permissions there, or name another folder: by HF_HOME, or by pull's --output"
    return Fault("no place", text, cure)


def _cause(error: Exception) -> str:
    """Why, in a few words where huggingface_hub has a paragraph."""
    from httpx import ConnectError, ConnectTimeout
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    looked = isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None
    if looked and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set" + (", and no earlier download is here" if looked else "")
    if looked or isinstance(error, ConnectError | ConnectTimeout):
        return f"the Hub cannot be reached: {one_line(error)}"
    if isinstance(error, GatedRepoError):
        return "its owner has to grant access"
    if isinstance(error, RepositoryNotFoundError):
        return "the Hub has no such repository, or it is private"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, OSError) and error.errno == 0:
        return str(error.strerror)
    return one_line(error)


class Repository:
    """One commit of a repository.

    Everything it does may raise what ``hub_errors`` catches.
    """

    def __init__(self, hub_id: str, revision: str | None = None) -> None:
        """Asks the Hub for the commit and its files.

        Args:
            hub_id: Owner and name.
            revision: Branch, tag or commit; the default branch unless given.
        """
        # Imported here: it costs a second, and a local folder needs none of it.
        from huggingface_hub import HfApi, constants
        from huggingface_hub.hf_api import RepoFile

        self._api = HfApi()
        self.hub_id = hub_id
        self.commit: str = self._api.repo_info(
            hub_id, revision=revision or constants.DEFAULT_REVISION
        ).sha
        self._commits = {self.commit: True}
        self.files: dict[str, HubFile] = {}
        for item in self._api.list_repo_tree(hub_id, recursive=True, revision=self.commit):
            if not isinstance(item, RepoFile) or not _stays_below(item.path):
                continue
            sha256 = item.lfs.sha256 if item.lfs is not None else None
            if sha256 is not None and not _SHA256.fullmatch(sha256):
                sha256 = None
            self.files[item.path] = HubFile(item.path, int(item.size), sha256, item.blob_id)
            if len(self.files) > MOST_FILES:
                raise ValueError(f"it has more than {MOST_FILES} files")

    def has_commit(self, commit: str) -> bool:
        """Asks the Hub, once, whether a commit is one of the repository's."""
        from huggingface_hub.errors import RevisionNotFoundError

        if commit not in self._commits:
            try:
                self._api.repo_info(self.hub_id, revision=commit)
                self._commits[commit] = True
            except RevisionNotFoundError:
                self._commits[commit] = False
        return self._commits[commit]

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """Streams a range of a file's bytes, going on after errors of the network where it stopped.

        Args:
            name: One of ``files``.
            begin: First byte.
            end: The one after the last, at most the file's size.
        """
        failures = 0
        while begin < end:
            try:
                for chunk in self._request(name, begin, end):
                    failures = 0
                    begin += len(chunk)
                    yield chunk
            except _transient_errors():
                failures += 1
                if failures > RETRIES:
                    raise
                time.sleep(min(2.0**failures / 4, 8.0))

    def _request(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """One request for a range; ends early where the server does."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = {
            **build_hf_headers(),
            "Range": f"bytes={begin}-{end - 1}",
            "Accept-Encoding": "identity",  # a range is of the bytes as they are sent
        }
        url = hf_hub_url(self.hub_id, name, revision=self.commit)
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream(
            "GET", url, headers=headers, timeout=timeout, follow_redirects=True
        ) as response:
            if response.status_code in _BUSY:
                raise ConnectionResetError(0, f"the server answers {response.status_code}")
            hf_raise_for_status(response)
            # A server that knows no ranges sends the file from its beginning.
            skip = begin if response.status_code == 200 else 0
            left = end - begin
            for chunk in response.iter_bytes():
                piece = chunk[skip : skip + left]
                skip -= min(skip, len(chunk))
                left -= len(piece)
                if piece:
                    yield piece
                if not left:
                    return
            if left:
                raise ConnectionResetError(0, "the connection ended early")


def _transient_errors() -> tuple[type[Exception], ...]:
    from httpx import NetworkError, RemoteProtocolError, TimeoutException

    return (NetworkError, RemoteProtocolError, TimeoutException, ConnectionResetError)


def _stays_below(path: str) -> bool:
    """Whether a path is one of files below a folder, whoever reads it."""
    parts = PurePosixPath(path).parts
    sound = bool(parts) and not path.startswith("/") and ".." not in parts
    return sound and "\\" not in path and path.isprintable()
