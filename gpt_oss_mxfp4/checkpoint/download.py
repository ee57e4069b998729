"""Large files of a repository, each fetched to its end however often that is interrupted.

huggingface_hub 1.33 begins a file anew in every process. Here bytes go to a partial file beside the
place of the whole one, and the next attempt goes on behind them. The name changes only once all
bytes are there and have the Hub's SHA-256; what huggingface_hub then finds it takes as its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpt_oss_mxfp4.checkpoint.checksums import DOWNLOADS, Checksum, write_note
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.own_files import holds
from gpt_oss_mxfp4.checkpoint.repository import MAKE_ROOM, HubFile, Repository
from gpt_oss_mxfp4.quantity import bytes_text

CONNECTIONS = 4
"""Files that are fetched at once."""

_SPARE_BYTES = 2**28
"""Left free on the disk for others."""

_READ_BYTES = 2**22

_WAIT_SECONDS = 0.1
"""Between looks whether another process is done with a file."""

Advance = Callable[[int], None]
"""Gets the number of bytes that came; fewer than none where they have to come again."""


@dataclass(frozen=True)
class _Place:
    """Where a file goes: ``whole`` once it is, ``partial`` until then."""

    file: HubFile
    whole: Path
    partial: Path

    @property
    def in_cache(self) -> bool:
        """Whether it goes to huggingface_hub's cache, where its name is its checksum."""
        return self.whole.name == self.file.sha256

    def is_whole(self) -> bool:
        """Whether the file is there."""
        if self.in_cache:  # put there whole
            return self.whole.is_file() and self.whole.stat().st_size == self.file.nbytes
        return holds(self.whole, self.file)

    def done_bytes(self) -> int:
        """Bytes that an earlier attempt has left to go on behind."""
        have = self.partial.stat().st_size if self.partial.is_file() else 0
        return have if have <= self.file.nbytes else 0


class _Stopped(Exception):
    """Another file has failed; what came of this one stays for the next attempt."""


class Downloads:
    """Files of a repository and the places they go to."""

    def __init__(
        self, repository: Repository, files: Iterable[HubFile], output: Path | None
    ) -> None:
        """Finds out what is there already.

        Args:
            repository: Where they come from.
            files: Those of the root to fetch; any whose SHA-256 the Hub does not tell is left to huggingface_hub.
            output: A folder, or None for huggingface_hub's cache.
        """
        self._repository = repository
        known = [file for file in files if file.sha256 is not None]
        places = [_place(repository.hub_id, file, output) for file in known]
        self._places = [place for place in places if not place.is_whole()]
        self._done = {place: place.done_bytes() for place in self._places}
        self._stop = threading.Event()

    @property
    def nbytes(self) -> int:
        """Bytes of the files that are not whole yet, those counted that came already."""
        return sum(place.file.nbytes for place in self._places)

    @property
    def done_bytes(self) -> int:
        """Bytes of them that came already."""
        return sum(self._done.values())

    def fetch(self, advance: Advance) -> None:
        """Fetches all, a few at once.

        Args:
            advance: Gets the number of bytes of each piece; those that came before are not among them.

        Raises:
            CheckpointError: If a file's bytes are not those the Hub tells of, or the disk has too little room.
            OSError: As ``Repository.read`` does.
        """
        if not self._places:
            return
        left = self.nbytes - self.done_bytes
        folder = self._places[0].partial.parent
        for place in self._places:
            place.partial.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if left + _SPARE_BYTES > free:
            needs = bytes_text(left + _SPARE_BYTES)
            text = f"{folder} must have {needs} free, has {bytes_text(free)}"
            raise CheckpointError(self._repository.hub_id, [Fault("no room", text, MAKE_ROOM)])
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            tasks = [pool.submit(self._fetch, place, advance) for place in self._places]
            try:
                for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                    task.result()
            finally:
                self._stop.set()
                for task in tasks:
                    task.cancel()

    def _fetch(self, place: _Place, advance: Advance) -> None:
        while not place.is_whole():
            with place.partial.open("a+b") as stream:
                self._lock(stream)
                if not _is_at(stream, place.partial):
                    continue  # another process has put the file in its place meanwhile
                if place.is_whole():  # it had before the partial file was opened, which is new then
                    place.partial.unlink()
                    continue
                self._complete(place, stream, advance)
                return
        advance(place.file.nbytes - self._done[place])

    def _lock(self, stream: BinaryIO) -> None:
        """Waits for another process that fetches the same file."""
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._stop.wait(_WAIT_SECONDS)
                self._go_on()
            except OSError as error:  # a file system without locks, say
                raise OSError(error.errno, error.strerror, stream.name) from error

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _complete(self, place: _Place, stream: BinaryIO, advance: Advance) -> None:
        """Fetches what is missing, checks all of it, and puts it in its place."""
        file = place.file
        done = self._done[place]
        had = os.fstat(stream.fileno()).st_size
        for begin in [had, 0] if 0 < had <= file.nbytes else [0]:
            advance(begin - done)  # more than nothing where another process has gone on meanwhile
            stream.truncate(begin)
            stream.seek(0)
            hasher = hashlib.sha256()
            while piece := stream.read(_READ_BYTES):
                self._go_on()
                hasher.update(piece)
            for piece in self._repository.read(file.name, begin, file.nbytes):
                self._go_on()
                stream.write(piece)
                hasher.update(piece)
                advance(len(piece))
            stream.flush()
            if hasher.hexdigest() == file.sha256:
                os.fsync(stream.fileno())
                place.partial.replace(place.whole)
                if not place.in_cache:
                    # Without it huggingface_hub would hash the file once more, or go by an earlier one's.
                    write_note(place.whole, self._repository.commit, Checksum(str(file.sha256)))
                return
            # What an earlier attempt left may be damaged, after a power failure say.
            done = file.nbytes
        place.partial.unlink()
        text = f"{file.name} must have the SHA-256 that the Hub tells, {file.sha256}, got {hasher.hexdigest()}"
        raise CheckpointError(
            self._repository.hub_id, [Fault("wrong checksum", text, "Pull it again")]
        )


def _place(hub_id: str, file: HubFile, output: Path | None) -> _Place:
    if output is not None:
        partial = output / DOWNLOADS / f"{file.name}.{file.sha256}.part"
        return _Place(file, output / file.name, partial)
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE, f"models--{hub_id.replace('/', '--')}", "blobs")
    return _Place(file, blobs / str(file.sha256), blobs / f"{file.sha256}.part")


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
