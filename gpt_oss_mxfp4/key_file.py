"""The API keys of a server: those that it takes, and the one that its client sends."""

from __future__ import annotations

import os
from pathlib import Path

from gpt_oss_mxfp4.options import API_KEY_VARIABLE, Refused


def read_keys(file: Path | None) -> list[str]:
    """Reads the keys.

    Args:
        file: of keys, one a line, or None for the environment's, which is one or none.

    Raises:
        Refused: the file cannot be read, there is no key in it, or a key is one that no client can send.
    """
    if file is None:
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        return _sendable([key] if key else [], f"{API_KEY_VARIABLE}:")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Refused(f"--api-key-file: {file} cannot be read ({reason})") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise Refused(f"--api-key-file: {file} must hold a key, one a line; it has none")
    return _sendable(keys, f"--api-key-file: {file}")


def _sendable(keys: list[str], where: str) -> list[str]:
    """Returns keys that a request's header can hold."""
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise Refused(f"{where} must hold nothing but printable ASCII")
    return keys
