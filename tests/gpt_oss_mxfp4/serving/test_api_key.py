"""Which requests carry one of the keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4.key_file import read_keys
from gpt_oss_mxfp4.serving.api_key import ApiKeys
from gpt_oss_mxfp4.serving.errors import Rejected

BEARER = [(b"authorization", b"Bearer a-key")]


def test_a_file_has_a_key_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\n\n  a-key \n")
    ApiKeys(read_keys(file)).check(BEARER)
    with pytest.raises(Rejected, match="not one of this server's"):
        ApiKeys(read_keys(file)).check([(b"authorization", b"Bearer other")])


def test_two_keys_in_one_request_are_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("a-key")
    with pytest.raises(Rejected, match="Send your API key"):
        ApiKeys(read_keys(file)).check(BEARER * 2)


def test_without_a_file_the_environment_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", "a-key")
    ApiKeys(read_keys(None)).check(BEARER)
    with pytest.raises(Rejected):
        ApiKeys(read_keys(None)).check([])
    with pytest.raises(Rejected):
        ApiKeys(read_keys(None)).check([(b"authorization", b"Bearer \xff-key")])


def test_without_either_all_are_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", " ")
    ApiKeys(read_keys(None)).check([])
