"""check_tokenizer: whether a folder holds the tokenizer without which no text can be made.

The loader reads weights alone, which is all that ``compile`` and ``bench`` need; what takes text asks here.
transformers, which loads the tokenizer in the end, takes a second to import, so that is left to it.
"""

import json
import os
from pathlib import Path
from typing import NoReturn

from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, CheckpointError, Fault, one_line, quoted

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

MAX_TOKENIZER_BYTES = 256 * 1024 * 1024
"""Largest file that is read; gpt-oss's has 28 MB."""

_CURE = "Copy the tokenizer's files of the model it was made from into the folder; convert takes them with --tokenizer"


def check_tokenizer(folder: Path, *, content: bool = True) -> None:
    """Checks the tokenizer's files of a folder.

    Args:
        folder: a folder.
        content: whether the files are read, or only looked for.

    Raises:
        CheckpointError: there is none, or it is none that transformers would load.
    """
    path = folder / TOKENIZER_FILE
    if not os.path.isfile(path):
        fault = Fault("no tokenizer", f"must hold {TOKENIZER_FILE}, does not", _CURE)
        raise CheckpointError(folder, [fault])
    if not content:
        return
    text = _read(path)
    fields = _object(path, text)
    # What transformers looks for first; it does not make up for a list that is missing.
    if not isinstance(fields.get("added_tokens"), list):
        _refuse(path, "must be a tokenizer (it holds no list of added_tokens)")
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(text)
    except Exception as error:  # of whatever kind the file's content trips
        _refuse(path, f"must be a tokenizer ({quoted(one_line(error))})")
    config = folder / TOKENIZER_CONFIG_FILE
    if os.path.isfile(config):
        _object(config, _read(config))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            _refuse(path, f"must be at most {MAX_TOKENIZER_BYTES} bytes of JSON, is larger")
        return path.read_bytes().decode()
    except OSError as error:
        fault = Fault("unreadable file", f"cannot be read ({error.strerror})", CHECK_PATH)
        raise CheckpointError(path, [fault]) from error
    except UnicodeDecodeError as error:
        _refuse(path, f"is not valid JSON ({error})")


def _object(path: Path, text: str) -> dict[str, object]:
    """Parses a JSON object, as leniently as transformers does."""
    try:
        value = json.loads(text)
    except RecursionError:
        _refuse(path, "must be a tokenizer, is nested too deeply to be one")
    except ValueError as error:
        _refuse(path, f"is not valid JSON ({error})")
    if not isinstance(value, dict):
        _refuse(path, "must be a JSON object, is not")
    return value


def _refuse(path: Path, text: str) -> NoReturn:
    raise CheckpointError(path, [Fault("no tokenizer", text, _CURE)])
