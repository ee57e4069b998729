"""What is said of a folder's tokenizer: by inspect and verify, and by generate before MAX is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint import tokenizer
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.options import DEMO_MODEL, Refused

Capture = pytest.CaptureFixture[str]

CURE = "Copy the tokenizer's files of the model it was made from into the folder; convert takes them with --tokenizer."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def without(field: str) -> bytes:
    fields = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    del fields[field]
    return json.dumps(fields).encode()


@pytest.mark.parametrize("verb", ["inspect", "verify", "generate", "chat"])
def test_a_folder_without_a_tokenizer_is_told_by_each_verb(
    folder: Path, capfd: Capture, verb: str
) -> None:
    (folder / "tokenizer.json").unlink()
    model = [str(folder)] if verb in ("inspect", "verify") else ["--model", str(folder)]
    assert cli.main([verb, *model, *(["--prompt", "x"] if verb == "generate" else [])]) == 2
    out, err = capfd.readouterr()
    fault = "must hold tokenizer.json, does not"
    if verb == "inspect":
        assert (
            f"would run: no, 1 fault\n  no tokenizer (1):\n    {fault}\n    cure: {CURE}\n" in out
        )
        assert "memory        weights" in out
    else:
        assert out == ""
        assert err.splitlines()[-1] == f"gpt-oss-mxfp4: {folder}: {fault}. {CURE}"
        assert "loading MAX" not in err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{}", "must be a tokenizer (it holds no list of added_tokens)"),
        (b"", "is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff", "is not valid JSON ('utf-8' codec can't decode byte 0xff in position 0"),
        (b"[" * 10**5, "must be a tokenizer, is nested too deeply to be one"),
        (b"[]", "must be a JSON object, is not"),
        (without("added_tokens"), "must be a tokenizer (it holds no list of added_tokens)"),
        (without("model"), "must be a tokenizer (Model missing."),
    ],
)
def test_a_file_that_is_no_tokenizer_is_told_where_loading_refuses_it(
    folder: Path, capfd: Capture, content: bytes, told: str
) -> None:
    from gpt_oss_mxfp4.prompt import load_tokenizer

    (folder / "tokenizer.json").write_bytes(content)
    assert cli.main(["verify", str(folder)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"gpt-oss-mxfp4: {folder}: tokenizer.json: {told}")
    with pytest.raises(Refused) as caught:
        load_tokenizer(open_checkpoint(folder))
    assert f"{folder}: must hold the model's tokenizer files (tokenizer.json: {told}" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        lambda folder: (folder / "tokenizer_config.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").write_bytes(without("version")),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
)
def test_what_loading_can_do_without_is_no_fault(
    folder: Path, change: Callable[[Path], object]
) -> None:
    from gpt_oss_mxfp4.prompt import load_tokenizer

    change(folder)
    check_tokenizer(folder)
    load_tokenizer(open_checkpoint(folder))


def test_a_config_of_the_tokenizer_that_is_no_json_is_told(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("x")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: is not valid JSON"):
        check_tokenizer(folder)


def test_a_file_of_any_size_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_TOKENIZER_BYTES", 1000)
    with pytest.raises(CheckpointError, match="must be at most 1000 bytes of JSON, is larger"):
        check_tokenizer(folder)


def test_its_weights_can_be_drawn_all_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    picture = tmp_path / "experts.svg"
    assert cli.main(["inspect", str(folder), "--experts", str(picture)]) == 2
    assert picture.is_file()
