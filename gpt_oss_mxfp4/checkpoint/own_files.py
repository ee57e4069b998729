"""Whose the files of a folder are that a repository is downloaded to: its own, or somebody else's work."""

from collections.abc import Iterable
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.checksums import Checksum, hub_checksum, read_note
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository

_COMPARED = 2**22
"""Bytes at either end of a file that was cut short."""


def holds(path: Path, file: HubFile) -> bool:
    """Whether a file here is one of the Hub; it is hashed where nothing was noted down of it, or it has changed since.

    Args:
        path: The file here, if there is one.
        file: The Hub's.
    """
    if not path.is_file() or path.stat().st_size != file.nbytes:
        return False
    note, status = read_note(path), path.stat()
    # What was moved here keeps the time of its last write, but not that of its last change of name.
    changed = max(status.st_mtime, status.st_ctime)
    has_changed = note is not None and note.time < changed
    known = None if has_changed else hub_checksum(path)
    if known is not None:
        return known.digest == file.digest
    return file.digest is not None and Checksum(file.digest).is_of(path)


def check_own_files(repository: Repository, folder: Path, names: Iterable[str]) -> None:
    """Refuses to replace what somebody else has put into a folder, and to mix two repositories there.

    Args:
        repository: What is to be downloaded.
        folder: Where to.
        names: Those of the folder's files that a download may replace, or that would be read beside it.

    Raises:
        CheckpointError: If one is another repository's, or would be replaced without ever having been this one's.
        OSError: If one cannot be read, or as ``Repository.read`` does.
    """
    faults = []
    for name in names:
        found = _what_else(folder / name, repository)
        if found is not None:
            text = f"{quoted(name)} must be the repository's or not be there, {found}"
            cure = "Name a folder that is not there yet, or move the file out of this one"
            faults.append(Fault("another file", text, cure))
    if faults:
        raise CheckpointError(folder, faults)


def _what_else(path: Path, repository: Repository) -> str | None:
    """What a file is that has to stay, or None where the download may go on."""
    file = repository.files.get(path.name)
    if file is not None and (holds(path, file) or _is_cut_short(path, file, repository)):
        return None
    note = read_note(path)
    if note is not None and not repository.has_commit(note.commit):
        return "is another repository's"
    if file is None:  # then nothing replaces it
        return None
    if note is None or not path.is_file():
        return "is another file"
    return None if note.checksum.is_of(path) else "has changed since it was downloaded"


def _is_cut_short(path: Path, file: HubFile, repository: Repository) -> bool:
    """Whether weights are the first bytes of the Hub's, as an interrupted copy leaves them; a text may end early.

    Told by their first and last bytes: they are replaced, and checked then.
    """
    if not file.is_weights or not path.is_file() or path.stat().st_size >= file.nbytes:
        return False
    size = path.stat().st_size
    with path.open("rb") as stream:
        for begin, end in ((0, min(size, _COMPARED)), (max(size - _COMPARED, 0), size)):
            stream.seek(begin)
            pieces = repository.read(file.name, begin, end)
            if not all(stream.read(len(piece)) == piece for piece in pieces):
                return False
    return True
