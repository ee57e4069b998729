"""What serve refuses before MAX is loaded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4 import physical_memory
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.serving.options import ServeOptions
from gpt_oss_mxfp4.serving.run import _serve
from tests.golden import CHECKPOINT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "--model-name: must not be empty"),
        ({"name": " "}, "--model-name: must not be empty"),
        ({"name": "\udcff"}, r"--model-name: must be valid UTF-8, got '\udcff'"),
        ({"model": "/a/\udcff"}, r"--model-name: must be valid UTF-8, got '/a/\udcff'"),
        ({"port": 9, "metrics_port": 9}, "--metrics-port: must be another than --port, 9"),
        (
            {"precompiled": Path("/nowhere")},
            "--precompiled: /nowhere must be a folder that compile has written",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    nothing: Any = None
    with pytest.raises(Refused) as refused:
        _serve(ServeOptions(**options), nothing, nothing)
    assert str(refused.value) == message


NOWHERE = "a..b"
"""A host that ends what should have ended before, or else the test would serve."""


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for file in CHECKPOINT.iterdir():
        if not file.name.startswith("tokenizer"):
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match=r"must hold tokenizer\.json, does not"):
        _serve(ServeOptions(model=str(tmp_path), host=NOWHERE), print, Progress(io.StringIO()))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("tokenizer.json", text) for text in (b"", b"{", b"[]", b"{}", b"\xff", b"[" * 10**5)),
        (
            "tokenizer.json",
            b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}}',
        ),
        *(("tokenizer_config.json", text) for text in (b"", b"{", b"[]", b"\xff", b"[" * 10**5)),
    ],
)
def test_broken_tokenizer_files_are_refused(tmp_path: Path, file: str, content: bytes) -> None:
    for whole in CHECKPOINT.iterdir():
        if whole.name != file:
            (tmp_path / whole.name).symlink_to(whole)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        _serve(ServeOptions(model=str(tmp_path), host=NOWHERE), print, Progress(io.StringIO()))
    assert str(refused.value).startswith(f"{tmp_path / file}: ")
    assert str(refused.value).isprintable()


def test_a_machine_without_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical_memory, "available_memory", lambda: 0)
    told = "^--max-batch-size, --max-length: 4 x 8192 tokens take .* this machine has 0 B left"
    with pytest.raises(Refused, match=told):
        _serve(ServeOptions(host=NOWHERE), print, Progress(io.StringIO()))
