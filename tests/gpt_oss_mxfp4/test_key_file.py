"""What is wrong with a file of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4.key_file import read_keys
from gpt_oss_mxfp4.options import Refused


def test_a_file_without_keys_is_refused_and_not_an_open_server(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(Refused, match=r"^--api-key-file: .*keys cannot be read \(No such file"):
        read_keys(file)
    file.write_text(" \n\n")
    with pytest.raises(Refused, match=r"must hold a key, one a line; it has none$"):
        read_keys(file)
    file.write_bytes(b"\xff")
    with pytest.raises(Refused, match=r"cannot be read \(it is not UTF-8\)$"):
        read_keys(file)
