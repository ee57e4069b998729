"""check_content: every byte of the weight files read once, in pieces, for values that cannot be meant.

What is looked for is what would spread through a model without an error anywhere: a scale byte that
means NaN, a NaN or an infinity among dense weights, an expert whose codes are all zero, bytes that
are not those the Hub has. All 16 codes are numbers, so codes alone cannot be wrong.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.checksums import hub_checksum
from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, Fault, quoted
from gpt_oss_mxfp4.checkpoint.index import TensorEntry, fill
from gpt_oss_mxfp4.checkpoint.layout import BLOCKS, SCALES
from gpt_oss_mxfp4.mxfp4 import E8M0_NAN

PIECE_BYTES = 2**20
"""Read at once: the piece is checked, and hashed, while it lies in the CPU's cache."""

_SHOWN_EXPERTS = 5
_DAMAGED = "The file was changed or damaged after it was downloaded: remove it and pull it again"
_BAD_VALUES = (
    "Weights like this make every answer nonsense: convert or train again from a sound checkpoint,"
    " or download this one again"
)

Bytes = NDArray[np.uint8]


def check_content(
    file: Path, entries: Mapping[str, TensorEntry], advance: Callable[[int], None]
) -> list[Fault]:
    """Reads one file to its end.

    Read, not mapped: a page that cannot be read is then an error, and not the end of the process.

    Args:
        file: A file of a checkpoint folder.
        entries: Its tensors; none for a file that has none, or whose header is not sound.
        advance: Gets the number of bytes of each piece that was read.

    Returns:
        All that is wrong with its content.
    """
    checksum = hub_checksum(file)
    faults: list[Fault] = []
    buffer = np.empty(PIECE_BYTES, np.uint8)
    try:
        with open(file, "rb", buffering=0) as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            hasher = checksum.hasher(size) if checksum is not None else None
            for begin, end, entry in _regions(entries, size):
                check = _check_of(entry) if entry is not None else None
                for position in range(begin, end, PIECE_BYTES):
                    piece = buffer[: min(PIECE_BYTES, end - position)]
                    if not fill(stream, piece.data):
                        raise OSError(0, "it became shorter while it was read")
                    if hasher is not None:
                        hasher.update(piece)
                    if check is not None:
                        check.add(piece, position - begin)
                    advance(len(piece))
                faults += check.faults() if check is not None else []
    except OSError as error:
        text = f"{file.name}: cannot be read to its end ({error.strerror})"
        return [*faults, Fault("unreadable file", text, CHECK_PATH)]
    if checksum is not None and hasher is not None and hasher.hexdigest() != checksum.digest:
        rule = f"{file.name}: must have the {checksum.name} that the Hub gave, {checksum.digest}"
        faults.append(Fault("wrong checksum", f"{rule}, has {hasher.hexdigest()}", _DAMAGED))
    return faults


def _regions(
    entries: Mapping[str, TensorEntry], size: int
) -> Iterator[tuple[int, int, TensorEntry | None]]:
    """The file from its first byte to its last: a header, then tensors."""
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if position < entry.begin:
            yield position, entry.begin, None
        yield entry.begin, entry.end, entry
        position = entry.end
    yield position, size, None


class _Check(Protocol):
    def add(self, piece: Bytes, offset: int) -> None:
        """Looks at the next bytes of a tensor, ``offset`` from its first."""

    def faults(self) -> list[Fault]:
        """What was found."""


def _check_of(entry: TensorEntry) -> _Check | None:
    if entry.dtype == "BF16":
        return _Finite(entry)
    if entry.dtype == "U8" and entry.name.endswith(SCALES):
        return _Scales(entry)
    if entry.dtype == "U8" and entry.name.endswith(BLOCKS) and entry.shape and entry.shape[0]:
        return _Experts(entry)
    return None


class _Found:
    """How many values are wrong, and where the first is."""

    def __init__(self, entry: TensorEntry, itemsize: int) -> None:
        self._entry = entry
        self._itemsize = itemsize
        self._count = 0
        self._first = 0

    def note(self, wrong: NDArray[np.bool_], offset: int) -> None:
        """Counts wrong values of a piece, at least one."""
        if not self._count:
            self._first = offset // self._itemsize + int(wrong.argmax())
        self._count += int(np.count_nonzero(wrong))

    def faults(self, kind: str, rule: str) -> list[Fault]:
        """One fault, or none."""
        if not self._count:
            return []
        at = [int(i) for i in np.unravel_index(self._first, self._entry.shape or (1,))]
        where = f"{quoted(self._entry.name)} in {self._entry.file.name}"
        text = f"{where} must {rule}, has {self._count}, the first at {at}"
        return [Fault(kind, text, _BAD_VALUES)]


class _Finite:
    """BF16 without NaN and infinity: those have all bits of the exponent set."""

    def __init__(self, entry: TensorEntry) -> None:
        self._found = _Found(entry, itemsize=2)

    def add(self, piece: Bytes, offset: int) -> None:
        exponents = piece.view("<u2") & np.uint16(0x7F80)
        if exponents.max() == 0x7F80:
            self._found.note(exponents == 0x7F80, offset)

    def faults(self) -> list[Fault]:
        return self._found.faults("not finite", "hold finite numbers only, no NaN or infinity")


class _Scales:
    """E8M0 without NaN."""

    def __init__(self, entry: TensorEntry) -> None:
        self._found = _Found(entry, itemsize=1)

    def add(self, piece: Bytes, offset: int) -> None:
        if piece.max() == E8M0_NAN:
            self._found.note(piece == E8M0_NAN, offset)

    def faults(self) -> list[Fault]:
        return self._found.faults("NaN scale", f"hold no scale byte {E8M0_NAN}, which means NaN")


class _Experts:
    """Codes of which every expert has some that are not zero; 0 and 8 are both zero."""

    def __init__(self, entry: TensorEntry) -> None:
        self._entry = entry
        self._nbytes = entry.nbytes // entry.shape[0]
        self._seen = np.zeros(entry.shape[0], np.bool_)

    def add(self, piece: Bytes, offset: int) -> None:
        end = offset + len(piece)
        for expert in range(offset // self._nbytes, -(-end // self._nbytes)):
            if not self._seen[expert]:
                begin = max(expert * self._nbytes - offset, 0)
                of_expert = piece[begin : (expert + 1) * self._nbytes - offset]
                # Most often the first bytes decide.
                self._seen[expert] = any(
                    np.bitwise_and(part, 0x77).any() for part in (of_expert[:64], of_expert)
                )

    def faults(self) -> list[Fault]:
        zero = np.flatnonzero(~self._seen).tolist()
        if not zero:
            return []
        shown = ", ".join(map(str, zero[:_SHOWN_EXPERTS]))
        more = f" and {len(zero) - _SHOWN_EXPERTS} more" if len(zero) > _SHOWN_EXPERTS else ""
        rule = "must have codes other than zero in every expert"
        text = f"{self._entry.name} in {self._entry.file.name} {rule}, has none in {shown}{more}"
        return [Fault("zero expert", text, _BAD_VALUES)]
