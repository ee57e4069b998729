"""FieldError: a request that cannot be answered as it asks to be. Nothing here imports MAX."""

from __future__ import annotations


class FieldError(ValueError):
    """Says ``FIELD: must ...`` of what must change in a request."""

    @property
    def field(self) -> str:
        """The field's name."""
        return str(self).partition(":")[0]
