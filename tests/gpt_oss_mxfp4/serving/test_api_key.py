"""Where keys come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.serving.api_key import load_keys
from gpt_oss_mxfp4.serving.errors import Rejected

BEARER = [(b"authorization", b"Bearer \xc3\xa9-key")]


def test_a_file_has_a_key_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\n\n  é-key \n")
    load_keys(file).check(BEARER)
    with pytest.raises(Rejected, match="not one of this server's"):
        load_keys(file).check([(b"authorization", b"Bearer other")])


def test_two_keys_in_one_request_are_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("é-key")
    with pytest.raises(Rejected, match="Send your API key"):
        load_keys(file).check(BEARER * 2)


def test_without_a_file_the_environment_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", "é-key")
    load_keys(None).check(BEARER)
    with pytest.raises(Rejected):
        load_keys(None).check([])
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", "\udcff-key")
    load_keys(None).check([(b"authorization", b"Bearer \xff-key")])


def test_without_either_all_are_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", " ")
    load_keys(None).check([])


def test_a_file_without_keys_is_refused_and_not_an_open_server(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(Refused, match=r"^--api-key-file: .*keys cannot be read \(No such file"):
        load_keys(file)
    file.write_text(" \n\n")
    with pytest.raises(Refused, match=r"must hold a key, one a line; it has none$"):
        load_keys(file)
    file.write_bytes(b"\xff")
    with pytest.raises(Refused, match=r"cannot be read \(it is not UTF-8\)$"):
        load_keys(file)
