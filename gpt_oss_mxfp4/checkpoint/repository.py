"""A repository of the Hub: its files' names, sizes and checksums, and ranges of their bytes.

huggingface_hub answers questions and downloads whole files; a range of a file is asked for here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted

MOST_FILES = 10_000
"""Files of a repository that are looked at."""

DOWNLOAD_FAILED = "download failed"
"""The kind of fault that ``hub_errors`` makes."""

RETRIES = 5
"""Attempts in a row that may bring no byte."""

_BUSY = (408, 429, 500, 502, 503, 504)
"""Answers that another attempt may not get."""

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
    def is_weights(self) -> bool:
        """Whether it is a weight file of the root: those of sub-folders are other copies."""
        return "/" not in self.name and self.name.endswith(".safetensors")


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Turns what huggingface_hub, the network and the disk raise into a CheckpointError."""
    from httpx import HTTPError

    try:
        yield
    except CheckpointError:
        raise
    except (HTTPError, OSError, ValueError) as error:  # every error of huggingface_hub is one
        cause = _cause(error)
        cure = (
            "Check the id, the revision and the network; a private or gated repository needs"
            " `hf auth login`. Where there is no network, give a local folder"
        )
        fault = Fault(DOWNLOAD_FAILED, f"cannot be downloaded ({quoted(cause)})", cure)
        raise CheckpointError(hub_id, [fault]) from error


def _cause(error: Exception) -> str:
    """Why, in a few words where huggingface_hub has a paragraph."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and no earlier download is here"
        return f"the Hub cannot be reached: {_one_line(error)}"
    if isinstance(error, GatedRepoError):
        return "its owner has to grant access"
    if isinstance(error, RepositoryNotFoundError):
        return "the Hub has no such repository, or it is private"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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

        api = HfApi()
        self.hub_id = hub_id
        self.commit: str = api.repo_info(
            hub_id, revision=revision or constants.DEFAULT_REVISION
        ).sha
        self.files: dict[str, HubFile] = {}
        for item in api.list_repo_tree(hub_id, recursive=True, revision=self.commit):
            if not isinstance(item, RepoFile) or not _stays_below(item.path):
                continue
            sha256 = item.lfs.sha256 if item.lfs is not None else None
            if sha256 is not None and not _SHA256.fullmatch(sha256):
                sha256 = None
            self.files[item.path] = HubFile(item.path, int(item.size), sha256, item.blob_id)
            if len(self.files) > MOST_FILES:
                raise ValueError(f"it has more than {MOST_FILES} files")

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
