"""The hidden folder in which an output grows: one writer, a record of what is whole, nothing lost at a kill.

Beside OUTPUT lies ``.OUTPUT.convert/``: ``lock``, ``journal.json`` and ``files/``, which becomes OUTPUT. A file is
whole if and only if the journal says so; the journal is replaced in one step, after the file's bytes are on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, INDEX_FILE
from gpt_oss_mxfp4.checkpoint.strict_json import read_object
from gpt_oss_mxfp4.convert.shards import Shard
from gpt_oss_mxfp4.options import Refused

LOCK = "lock"
"""Name of the file that one process at a time holds."""


class Journal:
    """The record of one conversion, whose lock this process holds.

    Args:
        output: where the files are to be in the end.
        task: what is made from what; a journal of another task is not gone on with.
    """

    def __init__(self, output: Path, task: Mapping[str, Any]) -> None:
        self.output = output
        self.folder = work_folder(output)
        self.files = self.folder / "files"
        self._path = self.folder / "journal.json"
        self._task = json.loads(json.dumps(task))
        left = self._left()
        same = left.get("task") == self._task
        self.shards: dict[str, dict[str, Any]] = left["shards"] if same else {}
        self.other_task = bool(left) and not same
        """Whether an unfinished conversion of something else was found."""

    def in_place(self, shards: Iterable[Shard]) -> bool:
        """Whether an earlier run of this task put the files in their place, and ended right after.

        Args:
            shards: all files with weights; each must be there in its size, whatever the journal says.
        """
        if os.path.lexists(self.files):
            return False
        sizes = {shard.name: shard.nbytes for shard in shards}
        small = all(os.path.isfile(self.output / name) for name in (CONFIG_FILE, INDEX_FILE))
        return small and all(
            name in self.shards
            and os.path.isfile(self.output / name)
            and os.path.getsize(self.output / name) == nbytes
            for name, nbytes in sizes.items()
        )

    def open(self) -> None:
        """Makes the folder of files ready: what the journal does not call whole is removed."""
        if not self.shards:
            shutil.rmtree(self.files, ignore_errors=True)
        self.files.mkdir(exist_ok=True)
        for file in self.files.iterdir():
            if file.name not in self.shards:
                file.unlink()
        for name in [name for name in self.shards if not (self.files / name).is_file()]:
            del self.shards[name]
        self._write()

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Records that a file is whole; its bytes must be on the disk, under its name."""
        _sync(self.files)
        self.shards[name] = dict(record)
        self._write()

    def drop(self, name: str) -> None:
        """Records that a file is not whole after all."""
        del self.shards[name]
        self._write()

    def finish(self) -> None:
        """Puts the files in their place; the journal stays, for what is still to be told of them.

        Raises:
            Refused: they cannot be put there.
        """
        try:
            for file in self.files.iterdir():
                if file.name not in self.shards:
                    _sync(file)
            _sync(self.files)
            self.files.rename(self.output)
            _sync(self.output.parent)
        except OSError as error:
            raise Refused(f"--output: {self.output} cannot be made ({error.strerror})") from error

    def remove(self) -> None:
        """Removes all that is in the hidden folder but its lock, which goes last: see ``locked``."""
        with contextlib.suppress(OSError):
            for place in self.folder.iterdir():
                if place.is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                elif place.name != LOCK:
                    place.unlink(missing_ok=True)

    def _left(self) -> dict[str, Any]:
        """What an earlier run recorded, if it can be read."""
        try:
            left = read_object(self._path)
        except CheckpointError:
            return {}
        shards = left.get("shards")
        sound = isinstance(shards, dict) and all(map(_is_record, shards.values()))
        return left if sound else {}

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        write_synced(temporary, json.dumps({"task": self._task, "shards": self.shards}))
        temporary.rename(self._path)
        _sync(self.folder)


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and all(
        isinstance(record.get(key), dict) for key in ("digests", "losses")
    )


def work_folder(output: Path) -> Path:
    """Where an output grows."""
    return output.parent / f".{output.name}.convert"


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Makes the hidden folder, and keeps others from writing to it.

    Args:
        output: where the files are to be in the end.

    Raises:
        Refused: another process is at it, it cannot be made, or a link is in its place or in it.
    """
    folder = work_folder(output)
    try:
        # What is written and removed there must not be another folder's.
        links = [folder] if folder.is_symlink() else []
        if not links:
            folder.mkdir(parents=True, exist_ok=True)
            links = sorted(place for place in folder.iterdir() if place.is_symlink())
        if links:
            raise Refused(f"--output: {links[0]} must be convert's own, is a link; remove it")
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Refused(f"--output: {output} cannot be made ({error.strerror})") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have removed the folder since it was opened here.
            held = _is_held(folder, fd)
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:  # a file system without locks, say
            _remove_empty(folder)
            raise Refused(
                f"--output: {output} cannot be locked ({error.strerror}); name a folder on another disk"
            ) from error
        if not held:
            raise Refused(
                f"--output: another process is writing {output}; wait for it, or name another folder"
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if _is_held(folder, fd):
                    _remove_empty(folder)
    finally:
        os.close(fd)


def _remove_empty(folder: Path) -> None:
    """Removes the hidden folder where nothing but the lock is left of it."""
    if [file.name for file in folder.iterdir()] == [LOCK]:
        shutil.rmtree(folder)


def _is_held(folder: Path, fd: int) -> bool:
    """Whether the lock that lies in a folder is the one that was opened."""
    return os.path.samestat(os.stat(folder / LOCK), os.fstat(fd))


def write_synced(path: Path, text: str) -> None:
    """Writes a file, to the disk."""
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    """Gets a file's bytes, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
