"""Argument values: types, which parse what was typed or say in half a line what is wrong with it, and `options_of`."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpt_oss_mxfp4.options import MAX_TEMPERATURE, MAX_TOKENS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def options_of(arguments: argparse.Namespace, kind: type[Options]) -> Options:
    """Returns what a verb is asked for: each field is the argument of the same name."""
    return kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})


def text(value: str) -> str:
    """Valid UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:  # undecodable bytes on the command line
        raise argparse.ArgumentTypeError("must be valid UTF-8") from None
    return value


def prompt_text(value: str) -> str:
    """Text that is not empty and valid UTF-8."""
    if not value:
        raise argparse.ArgumentTypeError("must not be empty")
    return text(value)


def path(text: str) -> Path:
    """A path. An empty text is refused, as pathlib would take it for the current folder.

    The home folder is filled in here, as shells leave ``--option=~/x`` as it is.
    """
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(os.path.expanduser(text))  # Path's own raises if there is no such user


def prompt_file(name: str) -> str:
    """The text of a file, or of standard input if its name is ``-``, without a trailing newline."""
    source = "standard input" if name == "-" else name
    try:
        if name != "-":
            data = Path(os.path.expanduser(name)).read_bytes()
        elif sys.stdin is not None:
            data = sys.stdin.buffer.read()
        else:  # closed by the parent process
            raise argparse.ArgumentTypeError(f"{source} must be open")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{source} must be valid UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        why = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{source} cannot be read ({why})") from None
    text = re.sub(r"\r?\n\Z", "", text)
    if not text:
        raise argparse.ArgumentTypeError(f"{source} must not be empty")
    return text


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def top_k(text: str) -> int:
    """A number of tokens from 1 to the most that anything may have."""
    value = _integer(text)
    if not 1 <= value <= MAX_TOKENS:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_TOKENS}, got {text}")
    return value


def port(text: str) -> int:
    """A whole number from 0 to 65535."""
    value = _integer(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {text}")
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2^64 - 1."""
    value = _integer(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2^64 - 1, got {text}")
    return value


def temperature(text: str) -> float:
    """A number from 0 to MAX's limit."""
    value = _number(text)
    if not 0 <= value <= MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"must be between 0 and {MAX_TEMPERATURE:g}, got {text}")
    return value


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def gigabytes(text: str) -> int:
    """A number of gigabytes from a byte to 1e9, as bytes."""
    value = _number(text)
    if not 1e-9 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"must be between 1e-9 and 1e9, got {text}")
    return int(value * 1e9)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value
