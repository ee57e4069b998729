"""A folder that keeps what was compiled from one run to the next: found by what it was made from, checked when read.

An entry is one file, a line with the digest of what follows and then MAX's own format; or, where a file
is read where it lies, by its own name, a folder of that and its digest. It gets its name when it is whole, so any
number of processes may read, write and clear the folder at once. Nothing here imports MAX.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "GPT_OSS_MXFP4_CACHE"
"""Environment variable that names the folder; empty means that nothing is kept."""

ENTRIES = 64
"""Entries that are kept, some MB each: those used last."""

SUFFIX = ".gpt-oss-mxfp4"
"""How an entry's name ends."""

UNFINISHED = ".gpt-oss-mxfp4-"
"""How the name of a folder begins in which an entry is being made."""

_DIGEST_FILE = "sha256"
"""Beside a file that is read where it lies."""

ABANDONED_SECONDS = 24 * 3600
"""Age at which what a writer has left unfinished is removed."""


def default_folder() -> Path | None:
    """Returns the folder that the environment asks for, or None where it asks for none or names no home."""
    asked = os.environ.get(CACHE_VARIABLE)
    if asked is not None:
        # Not Path's own, which raises where there is no such user.
        return Path(os.path.expanduser(asked)).absolute() if asked else None
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # The XDG specification has relative paths ignored.
        return (base if base.is_absolute() else Path.home() / ".cache") / "gpt-oss-mxfp4"
    except RuntimeError:  # a user without a home
        return None


def entry_name(kind: str, *made_from: object) -> str:
    """Names an entry after all that it was made from.

    Args:
        kind: what it is, for who looks into the folder.
        made_from: whatever must be equal for the entry to serve; each tells all of itself by ``repr``, alike in every
            process.
    """
    return f"{kind}-{hashlib.sha256(repr(made_from).encode()).hexdigest()[:32]}"


@dataclass(frozen=True)
class CompiledCache:
    """Entries in a folder.

    Args:
        folder: need not be there before something is written.
        fixed: whether the folder stays as it is, whatever is read from it.
    """

    folder: Path
    fixed: bool = False

    def read(self, name: str) -> bytes | None:
        """Returns what was kept under a name, or None: no entry, or one that is not what was written."""
        path = self._path(name)
        try:
            digest, _, content = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if digest != _digest(content):
            self.remove(name)
            return None
        if not self.fixed:
            with contextlib.suppress(OSError):  # another user's folder, say
                os.utime(path)
        return content

    def write(self, name: str, export: Callable[[Path], None]) -> None:
        """Keeps what was compiled, and no more than ENTRIES in all.

        Args:
            name: from :func:`entry_name`.
            export: writes it to a path.

        Raises:
            OSError: the folder cannot be written, or is full; what ``export`` raises passes through.
        """
        with self._unfinished() as temporary:
            exported, whole = temporary / "exported", temporary / "whole"
            export(exported)
            content = exported.read_bytes()
            whole.write_bytes(_digest(content) + b"\n" + content)
            whole.replace(self._path(name))
        self._prune()

    def find_file(self, name: str, file_name: str) -> Path | None:
        """Returns where a file lies that was kept, or None: no entry, or one that is not what was written."""
        folder = self._path(name)
        try:
            digest, content = (
                (folder / _DIGEST_FILE).read_bytes(),
                (folder / file_name).read_bytes(),
            )
        except OSError:
            return None
        if digest != _digest(content):
            return None
        with contextlib.suppress(OSError):  # another user's folder, say
            os.utime(folder)
        return folder / file_name

    def write_file(self, name: str, file_name: str, export: Callable[[Path], object]) -> None:
        """Keeps a file that is read where it lies, and no more than ENTRIES in all.

        Args:
            name: from :func:`entry_name`.
            file_name: what it is to be called.
            export: writes it to a path of that name.

        Raises:
            OSError: as :meth:`write`, or another process has kept it meanwhile, whose is left as it is.
        """
        with self._unfinished() as temporary:
            whole = temporary / "whole"  # with the rights that other entries have
            whole.mkdir()
            export(whole / file_name)
            (whole / _DIGEST_FILE).write_bytes(_digest((whole / file_name).read_bytes()))
            if self.find_file(name, file_name) is None:
                self.remove(name)
            whole.rename(self._path(name))
        self._prune()

    @contextlib.contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """Gives a folder within to make an entry in, for the time that it takes."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=UNFINISHED))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Drops an entry, where it is there and can be dropped."""
        if self.fixed:
            return
        _drop(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _prune(self) -> None:
        """Drops what is superfluous, of what this class has made alone: the folder may be any."""
        kept = sorted(self.folder.glob(f"*{SUFFIX}"), key=_last_used, reverse=True)
        for path in kept[ENTRIES:]:
            _drop(path)
        for path in self.folder.glob(f"{UNFINISHED}*"):
            if time.time() - _last_used(path) > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _drop(entry: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _last_used(path: Path) -> float:
    """Seconds of the epoch; 0 where another process has just removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
