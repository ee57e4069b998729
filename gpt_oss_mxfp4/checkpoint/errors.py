"""CheckpointError: every fault of a checkpoint in one sorted message, each with its cure."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

SHOWN_PER_KIND = 10
"""Faults of one kind that a message spells out; the rest are counted."""

SHOWN_CHARACTERS = 120
"""Longest piece of a file's own text (a tensor name, a value) that a message repeats."""


CHECK_PATH = "Check the path and its permissions"
"""The cure where the file system refuses."""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong.

    Args:
        kind: What sort of fault: ``missing tensor``. Faults of a kind are listed together.
        text: What must hold and what was found: ``<what> must <rule>, got <value>``.
        cure: What the reader can do about it, as a sentence without its full stop.
    """

    kind: str
    text: str
    cure: str


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, or would be computed wrongly.

    One fault reads ``<where>: <text>. <cure>.``; several are grouped by kind and sorted, the first
    ten of a kind spelled out and the rest counted, the cure once per group.
    """

    def __init__(
        self, where: str | Path, faults: Iterable[Fault], shown_per_kind: int = SHOWN_PER_KIND
    ) -> None:
        """Makes the message.

        Args:
            where: The folder or file that is at fault.
            faults: What is wrong with it, at least one, in any order.
            shown_per_kind: Faults of one kind that the message spells out.
        """
        self.where = str(where)
        self.faults = tuple(sorted(set(faults)))
        self._shown_per_kind = shown_per_kind
        super().__init__(_message(self.where, self.faults, shown_per_kind))

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[Fault, ...], int]]:
        """Lets the error travel from a worker process with its faults, not only its text."""
        return (type(self), (self.where, self.faults, self._shown_per_kind))


def one_line(told: object) -> str:
    """What others' code says, in one line; the name of an error that says nothing."""
    name = type(told).__name__ if isinstance(told, BaseException) else ""
    return " ".join(str(told).split()) or name


def quoted(value: object) -> str:
    """Text from a file made safe to print: control characters escaped, long values cut.

    Args:
        value: A name or value found in a checkpoint. A string that can be printed stays as it is.

    Returns:
        At most about ``SHOWN_CHARACTERS`` printable characters.
    """
    text = value if isinstance(value, str) and value.isprintable() and value else ascii(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def fault_lines(faults: Iterable[Fault], shown_per_kind: int = SHOWN_PER_KIND) -> list[str]:
    """Lists faults by kind: its number, a line for each, the cures.

    Args:
        faults: In any order.
        shown_per_kind: Faults of one kind that are spelled out; the rest are counted.
    """
    lines = []
    faults = sorted(set(faults))
    for kind, of_kind in groupby(faults, key=lambda fault: fault.kind):
        group = list(of_kind)
        lines.append(f"{kind} ({len(group)}):")
        lines += [f"  {fault.text}" for fault in group[:shown_per_kind]]
        if len(group) > shown_per_kind:
            lines.append(f"  and {len(group) - shown_per_kind} more")
        lines += [f"  cure: {cure}." for cure in sorted({fault.cure for fault in group})]
    return lines


def _message(where: str, faults: tuple[Fault, ...], shown_per_kind: int) -> str:
    if len(faults) == 1:
        return f"{where}: {faults[0].text}. {faults[0].cure}."
    return "\n".join([f"{where}: {len(faults)} faults", *fault_lines(faults, shown_per_kind)])
