"""A request that is refused, in the form of OpenAI's errors."""

from __future__ import annotations

import json

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

Headers = list[tuple[bytes, bytes]]


class Rejected(Exception):
    """A request that is refused.

    Args:
        status: HTTP's, 400 or more.
        message: what is wrong with it, for whoever sent it.
        param: name of the field that is meant, or None.
        code: OpenAI's word for the case where clients look for one, or None.
        headers: further headers of the answer, names in lower case.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or []

    @property
    def envelope(self) -> dict[str, object]:
        """The answer's body, as OpenAI's clients read it."""
        kind = _TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def body(self) -> bytes:
        """The envelope as JSON."""
        return json.dumps(self.envelope).encode()


def json_name(value: object) -> str:
    """Returns what JSON calls a value, with an article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def wrong_type(name: str, expected: str, value: object) -> Rejected:
    """Says of a field what it must be instead of what it is."""
    return Rejected(400, f"`{name}` must be {expected}, not {json_name(value)}.", name)


def wrong_value(name: str, expected: str, value: object) -> Rejected:
    """Says of a word what it must be; what is no text is told by its type."""
    got = f"`{shortened(value)}`" if isinstance(value, str) else json_name(value)
    return Rejected(400, f"`{name}` must be {expected}; got {got}.", name)


def out_of_range(name: str, low: float, high: float, value: float) -> Rejected:
    """Says of a number between what it must lie."""
    return Rejected(
        400,
        f"`{name}` must be between {number(low)} and {number(high)}, got {number(value)}.",
        name,
    )


def number(value: float) -> str:
    """Writes a number, whole ones as such; those that Python cannot write or hold are just more."""
    if isinstance(value, int) and abs(value) < 10**60:
        return str(value)
    return f"{value:g}" if abs(value) < 1e300 else "more"


def shortened(text: str) -> str:
    """Returns what of a text is told again in a message about it."""
    return text if len(text) <= 60 else f"{text[:60]}..."
