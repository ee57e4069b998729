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
        Refused: the file cannot be read, or there is no key in it.
    """
    if file is None:
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        return [key] if key else []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Refused(f"--api-key-file: {file} cannot be read ({reason})") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise Refused(f"--api-key-file: {file} must hold a key, one a line; it has none")
    return keys
