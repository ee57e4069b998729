"""Bytes of a request to the JSON object they hold."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from gpt_oss_mxfp4.serving.errors import Rejected, json_name

MAX_DEPTH = 100
"""Of lists and objects in one another: far beyond any JSON schema in use, far below Python's own limit, which those who
read the request after us must not meet."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        body: of a request.

    Raises:
        Rejected: it is not UTF-8, not JSON, no object, nested too deeply, or has text that is no Unicode.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Rejected(400, f"The body must be UTF-8; byte {error.start} is not.") from None
    if not text.strip():
        raise Rejected(400, "The body must be a JSON object; it is empty.")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Rejected(
            400, f"The body must be JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number of more digits than Python converts
        raise Rejected(400, "The body must not hold numbers of thousands of digits.") from error
    if not isinstance(value, dict):
        raise Rejected(400, f"The body must be a JSON object, not {json_name(value)}.")
    _check_texts(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Rejected(400, f"The body must be JSON, which has no {name}.")


def _too_deep() -> Rejected:
    return Rejected(400, f"The body must not nest deeper than {MAX_DEPTH} lists and objects.")


def _check_texts(value: dict[str, Any]) -> None:
    """Checks every text and the depth, without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                for key in container:
                    _check_text(key)
                below.extend(container.values())
            else:
                below.extend(container)
        for item in below:
            if isinstance(item, str):
                _check_text(item)
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rejected(
            400, "The body must not hold half a surrogate pair (\\ud800 to \\udfff alone)."
        ) from None
