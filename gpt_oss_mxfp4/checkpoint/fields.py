"""Fields of a JSON object read by kind, every fault kept so that all are reported at once."""

from collections.abc import Mapping
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import Fault, quoted

LARGEST_NUMBER = 1e30
"""Largest real field believed; float32 holds it."""


class Fields:
    """A JSON object's fields. A bad one leaves a fault and gives a harmless stand-in.

    A null reads as absent, as transformers has it.
    """

    def __init__(self, values: Mapping[str, Any], cure: str, faults: list[Fault]) -> None:
        """Wraps an object.

        Args:
            values: The object.
            cure: What to do about a bad field.
            faults: Where faults go; one list may serve several objects.
        """
        self.values = values
        self.cure = cure
        self.faults = faults

    def get(self, key: str, default: Any = None) -> Any:
        """The field as it stands, or ``default`` where it is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def refuse(self, text: str, cure: str | None = None) -> None:
        """Keeps a fault."""
        self.faults.append(Fault("bad config", text, cure or self.cure))

    def size(self, key: str, largest: int) -> int:
        """An integer from 1 to ``largest``."""
        value = self.get(key)
        if type(value) is int and 1 <= value <= largest:  # a bool is an int to Python
            return value
        self.refuse(f"{key} must be an integer from 1 to {largest}, got {shown(value)}")
        return 1

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.get(key, default)
        if type(value) in (int, float) and 0 < value <= LARGEST_NUMBER:  # false for NaN
            return float(value)
        self.refuse(
            f"{key} must be a number above 0 and at most {LARGEST_NUMBER:g}, got {shown(value)}"
        )
        return 1.0

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key} must be true or false, got {shown(value)}")
        return bool(value)

    def fixed(self, key: str, wanted: Any, reason: str) -> None:
        """A field that may be absent but else has one value, for a reason."""
        value = self.get(key, wanted)
        if type(value) is not type(wanted) or value != wanted:
            self.refuse(f"{key} must be {shown(wanted)}, got {shown(value)}: {reason}")


def shown(value: Any) -> str:
    """A value as its JSON spells it, near enough to find it in the file."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.isprintable():
        return f'"{quoted(value)}"'
    return quoted(value)
