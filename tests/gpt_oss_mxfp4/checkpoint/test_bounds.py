"""Many files that are each small enough: refused by loader, survey and hollow copy before they add up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint import bounds, hub, index
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hollow import make_hollow
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository
from gpt_oss_mxfp4.checkpoint.survey import survey
from tests.gpt_oss_mxfp4.checkpoint.hostile import ONE, TWO, write_sound

CURE = "No gpt-oss has so much: leave only the model's own *.safetensors files there."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sound(tmp_path / "model")


class Held(Repository):
    """A repository that is a folder here."""

    def __init__(self, folder: Path) -> None:
        self.hub_id, self.commit, self._folder = "test/tiny", "0" * 40, folder
        self.files = {
            path.name: HubFile(path.name, path.stat().st_size, None) for path in folder.iterdir()
        }
        self.given = 0

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        data = (self._folder / name).read_bytes()[begin:end]
        self.given += name.endswith(".safetensors")
        yield data


def refusal_of_each(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages of the loader, the survey (its only fault) and the hollow copy; no header is parsed."""

    def parse(*_: object) -> None:
        raise AssertionError("a header is parsed")

    monkeypatch.setattr(index, "_parse", parse)
    with pytest.raises(CheckpointError) as loader:
        open_checkpoint(folder)
    with pytest.raises(CheckpointError) as hollow:
        make_hollow(Held(folder), target)
    [fault] = survey(folder).faults
    return [str(loader.value), f"{folder}: {fault.text}. {fault.cure}.", str(hollow.value)]


def test_too_many_files_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_FILES", 2)
    assert len(open_checkpoint(folder).files) == 2
    (folder / "model-00003.safetensors").write_bytes((folder / ONE).read_bytes())
    text = f"must have at most 2 *.safetensors files, has 3. {CURE}"
    assert refusal_of_each(folder, tmp_path / "hollow", monkeypatch) == [
        f"{folder}: {text}",
        f"{folder}: {text}",
        f"test/tiny: {text}",
    ]
    assert not (tmp_path / "hollow").exists()


def test_headers_that_are_too_long_together_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [
        int.from_bytes((folder / name).read_bytes()[: index.LENGTH_BYTES], "little")
        for name in (ONE, TWO)
    ]
    monkeypatch.setattr(bounds, "MAX_ALL_HEADERS_BYTES", sum(lengths))
    assert len(open_checkpoint(folder).files) == 2
    monkeypatch.setattr(bounds, "MAX_ALL_HEADERS_BYTES", sum(lengths) - 1)
    messages = refusal_of_each(folder, tmp_path / "hollow", monkeypatch)
    rule = f"must have at most {sum(lengths) - 1} bytes of headers in all *.safetensors files together,"
    for message, where in zip(messages, (folder, folder, "test/tiny"), strict=True):
        assert message.startswith(f"{where}: {rule} has ")
        assert message.endswith(f" or more. {CURE}")


def test_headers_that_no_reader_reads_do_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a file that cannot be opened, that is too short, that claims too much."""
    monkeypatch.setattr(bounds, "MAX_ALL_HEADERS_BYTES", 100)
    short, claims = folder / "short", folder / "claims"
    short.write_bytes((200).to_bytes(8, "little"))
    claims.write_bytes((200).to_bytes(8, "little") + bytes(200))
    files = [folder / "absent", short]
    assert bounds.bounded(folder, files) == files
    with pytest.raises(CheckpointError, match="together, has 200 or more"):
        bounds.bounded(folder, [*files, claims])
    monkeypatch.setattr(bounds, "MAX_HEADER_BYTES", 199)
    assert bounds.bounded(folder, [claims]) == [claims]


def test_a_repository_of_too_many_files_is_refused_before_its_weights_travel(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, output = Held(folder), tmp_path / "output"
    output.mkdir()
    monkeypatch.setattr(hub, "_download", lambda *_: folder)
    monkeypatch.setattr(hub, "Repository", lambda *_: held)
    monkeypatch.setattr(bounds, "MAX_FILES", 1)
    with pytest.raises(CheckpointError) as error:
        hub.download("test/tiny", output=output)
    assert str(error.value) == (
        f"test/tiny: must have at most 1 *.safetensors files, has 2. {CURE}"
    )
    assert held.given == 0
