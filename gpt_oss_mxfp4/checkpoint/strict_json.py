"""JSON objects from files that are not trusted: no duplicate keys, no NaN or infinity, no unbounded size."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, CheckpointError, Fault, quoted

MAX_FILE_BYTES = 8 * 1024 * 1024
"""Largest JSON file that is read, parsed to 290 MB at worst. The index of gpt-oss-120b is under 100 KB."""

_DOWNLOAD_AGAIN = "Download the file again from the repository it came from"


def parse_object(text: bytes) -> dict[str, Any]:
    """Parses one JSON object, stricter than ``json.loads``.

    Args:
        text: UTF-8 JSON.

    Returns:
        The object, its keys unique and valid Unicode at every depth.

    Raises:
        ValueError: If ``text`` is no such object; the message is a clause: ``is not valid JSON``.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except _Refused as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("is nested too deeply to be one of ours") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, got {_JSON_NAMES[type(value)]}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Reads a small JSON file that must hold one object.

    Args:
        path: The file.

    Returns:
        The object, as ``parse_object`` gives it.

    Raises:
        CheckpointError: If it cannot be read, is over ``MAX_FILE_BYTES`` or no strict JSON object.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        fault = Fault("unreadable file", f"cannot be read ({error.strerror})", CHECK_PATH)
        raise CheckpointError(path, [fault]) from error
    if len(text) > MAX_FILE_BYTES:
        rule = f"must be at most {MAX_FILE_BYTES} bytes of JSON, is larger"
        raise CheckpointError(path, [Fault("bad JSON", rule, _DOWNLOAD_AGAIN)])
    try:
        return parse_object(text)
    except ValueError as error:
        raise CheckpointError(path, [Fault("bad JSON", str(error), _DOWNLOAD_AGAIN)]) from None


class _Refused(ValueError):
    """JSON that ``json.loads`` takes and we do not."""


_JSON_NAMES = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    for key in unique:
        key.encode("utf-8")  # a lone surrogate raises here, before the key reaches a message
    if len(unique) != len(pairs):
        twice = min(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _Refused(f"holds the key {quoted(twice)} twice")
    return unique


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):  # which would be written as Infinity, and that is not JSON
        raise _Refused(f"holds {quoted(number)}, which is too large")
    return value


def _no_constant(name: str) -> Any:
    raise _Refused(f"holds {name}, which is not JSON")
