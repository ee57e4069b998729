"""What is wrong with a file of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4.key_file import read_keys
from gpt_oss_mxfp4.options import API_KEY_VARIABLE, Refused


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


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\ufefffirst\nsecond\n")
    assert read_keys(file) == ["first", "second"]


@pytest.mark.parametrize("key", ["schlüssel", "a\tb", "a\x7f"])
def test_a_key_that_no_client_can_send_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"first\n{key}-key\n")
    with pytest.raises(Refused) as refusal:
        read_keys(file)
    assert str(refusal.value) == f"--api-key-file: {file} must hold nothing but printable ASCII"
    monkeypatch.setenv(API_KEY_VARIABLE, f"{key}-key")
    with pytest.raises(Refused) as refusal:
        read_keys(None)
    assert str(refusal.value) == f"{API_KEY_VARIABLE}: must hold nothing but printable ASCII"
    monkeypatch.setenv(API_KEY_VARIABLE, "\udcff-key")
    with pytest.raises(Refused):
        read_keys(None)
