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

    def __init__(self, where: str | Path, faults: Iterable[Fault]) -> None:
        """Makes the message.

        Args:
            where: The folder or file that is at fault.
            faults: What is wrong with it, at least one, in any order.
        """
        self.where = str(where)
        self.faults = tuple(sorted(set(faults)))
        super().__init__(_message(self.where, self.faults))

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[Fault, ...]]]:
        """Lets the error travel from a worker process with its faults, not only its text."""
        return (type(self), (self.where, self.faults))


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


def _message(where: str, faults: tuple[Fault, ...]) -> str:
    if len(faults) == 1:
        return f"{where}: {faults[0].text}. {faults[0].cure}."
    lines = [f"{where}: {len(faults)} faults"]
    for kind, of_kind in groupby(faults, key=lambda fault: fault.kind):
        group = list(of_kind)
        lines.append(f"{kind} ({len(group)}):")
        lines += [f"  {fault.text}" for fault in group[:SHOWN_PER_KIND]]
        if len(group) > SHOWN_PER_KIND:
            lines.append(f"  and {len(group) - SHOWN_PER_KIND} more")
        lines += [f"  cure: {cure}." for cure in sorted({fault.cure for fault in group})]
    return "\n".join(lines)
