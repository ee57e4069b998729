"""resolve_model against a stand-in for the Hub on this machine: which files are asked for, and which never.

The real huggingface_hub runs in a process of its own, because it reads HF_ENDPOINT when imported.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint import hub as hub_module
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hub import download, resolve_model
from gpt_oss_mxfp4.checkpoint.repository import HubFile, Repository
from tests.gpt_oss_mxfp4.checkpoint.hub_stand_in import StandIn, serve
from tests.gpt_oss_mxfp4.checkpoint.small import ORIGINAL, config_fields, file_bytes, small_tensors

WANTED = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model-00001-of-00001.safetensors",
}


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with serve() as server:
        yield server


def published_files() -> dict[str, bytes]:
    """A repository with all that the published ones have: three copies of the weights, papers, pictures."""
    shard = "model-00001-of-00001.safetensors"
    weight_map = dict.fromkeys(small_tensors(), shard)
    return {
        **dict.fromkeys(WANTED, b"{}"),
        "config.json": json.dumps(config_fields()).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        shard: file_bytes(small_tensors()),
        ".gitattributes": b"",
        "LICENSE": b"",
        "README.md": b"",
        "USAGE_POLICY": b"",
        "original/config.json": b"{}",
        "original/model.safetensors": file_bytes(ORIGINAL),
        "metal/model.bin": b"weights",
        "metal/model.safetensors": b"weights",
    }


def resolve(
    hub: StandIn, cache: Path, *arguments: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys\n"
        "from gpt_oss_mxfp4.checkpoint.errors import CheckpointError\n"
        "from gpt_oss_mxfp4.checkpoint.hub import resolve_model\n"
        "try: print(resolve_model(*sys.argv[1:]))\n"
        "except CheckpointError as error: sys.exit(f'refused: {error}')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=hub.environment(cache, offline=offline),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_root_files_are_downloaded_and_sub_folders_never_asked_for(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.files = published_files()
    first = resolve(hub, tmp_path, "test/tiny")
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert hub.downloads == WANTED
    assert not [path for path in hub.requested if "original" in path or "metal" in path]
    assert {path.name for path in folder.iterdir()} == WANTED
    assert set(open_checkpoint(folder).entries) == set(small_tensors())

    hub.requested.clear()
    again = resolve(hub, tmp_path, "test/tiny", offline=True)
    assert (again.returncode, again.stdout, hub.requested) == (0, first.stdout, [])


def test_hidden_weights_are_neither_downloaded_nor_counted(hub: StandIn, tmp_path: Path) -> None:
    """They are what macOS, say, leaves beside a file."""
    hub.files = published_files()
    del hub.files["model.safetensors.index.json"]
    hub.files |= {f".{i}.safetensors": b"weights" for i in range(1000)}  # as many as may be there
    result = resolve(hub, tmp_path, "test/tiny")
    assert result.returncode == 0, result.stderr
    assert hub.downloads == WANTED - {"model.safetensors.index.json"}


def test_a_cache_with_hidden_weights_only_has_none(tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors").touch()
    assert not hub_module._are_there(tmp_path, set())
    (tmp_path / "model.safetensors").touch()
    assert hub_module._are_there(tmp_path, set())


def test_revision_is_asked_for(hub: StandIn, tmp_path: Path) -> None:
    hub.files = published_files()
    assert resolve(hub, tmp_path, "test/tiny", "v2").returncode == 0
    assert "/api/models/test/tiny/revision/v2" in hub.requested


def test_bf16_repository_is_refused_before_its_weights_travel(hub: StandIn, tmp_path: Path) -> None:
    hub.files = published_files()
    names = [name.removesuffix("_blocks") for name in small_tensors() if "_scales" not in name]
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    result = resolve(hub, tmp_path, "test/tiny")
    assert result.returncode == 1
    assert "experts must be MXFP4 (gate_up_proj_blocks and so on), got 4 unpacked" in result.stderr
    assert not [name for name in hub.downloads if name.endswith(".safetensors")]


def test_other_model_is_refused_before_its_weights_travel(hub: StandIn, tmp_path: Path) -> None:
    hub.files = published_files()
    hub.files["config.json"] = json.dumps(config_fields(model_type="llama")).encode()
    result = resolve(hub, tmp_path, "test/tiny")
    assert 'model_type must be "gpt_oss", got "llama"' in result.stderr
    assert not [name for name in hub.downloads if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("arguments", "offline", "cause"),
    [
        (("test/absent",), False, "the Hub has no such repository, or it is private)"),
        (("test/tiny", "absent"), False, "the repository has no such revision)"),
        (("test/tiny",), True, "HF_HUB_OFFLINE is set, and no earlier download is here)"),
        (("test/a--b",), False, "Cannot have -- or .. in repo_id"),
    ],
)
def test_failed_download_is_refused_with_its_cause(
    hub: StandIn, tmp_path: Path, arguments: tuple[str, ...], offline: bool, cause: str
) -> None:
    result = resolve(hub, tmp_path, *arguments, offline=offline)
    assert result.returncode == 1
    rule = "is no folder here, so it is taken for a Hub id, and cannot be downloaded"
    start = f"refused: {arguments[0]}: {rule} ({cause}"
    assert result.stderr.splitlines()[-1].startswith(start), result.stderr
    assert result.stderr.endswith("Where there is no network, give a local folder.\n")


def test_unreachable_hub_is_refused(hub: StandIn, tmp_path: Path) -> None:
    hub.server_port = 9  # the discard service, which no machine of today runs
    result = resolve(hub, tmp_path, "test/tiny")
    assert "cannot be downloaded (the Hub cannot be reached: [Errno 111]" in result.stderr


@pytest.mark.parametrize("call", ["os.listdir", "os.stat"])
def test_an_output_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "config.json").touch()

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    class Offline(Repository):
        def __init__(self, hub_id: str, revision: str | None) -> None:
            self.files = {"config.json": HubFile("config.json", 2, None, "1" * 40)}
            monkeypatch.setattr(call, refuse)

    monkeypatch.setattr(hub_module, "Repository", Offline)
    if call == "os.listdir":
        monkeypatch.setattr(call, refuse)
    with pytest.raises(CheckpointError) as caught:
        download("test/tiny", output=tmp_path)
    monkeypatch.undo()
    assert str(caught.value) == (
        f"test/tiny: cannot be downloaded to {tmp_path} (Permission denied). Check the permissions there, or"
        " name another folder: by HF_HOME, or by pull's --output."
    )


def test_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path), "main") == tmp_path  # MAX names a revision of everything


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~") == tmp_path


@pytest.mark.parametrize(
    "model", ["gpt-oss-20b", "./absent/folder", "a/b/c", "/absent", "~/absent/x"]
)
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve_model(model)
    assert str(caught.value) == (
        f"{model}: must be an existing folder or a Hub id of the form owner/name, is neither. Check"
        " the path, or give a repository such as openai/gpt-oss-20b (or openai/gpt-oss-120b)."
    )


def test_path_object_is_never_a_hub_id() -> None:
    with pytest.raises(CheckpointError, match=r"absent/folder: must be an existing folder or"):
        resolve_model(Path("absent/folder"))


def test_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError) as caught:
        resolve_model(file)
    text = "must be a folder, is a file. Give the folder that holds it"
    assert str(caught.value) == f"{file}: {text}, {tmp_path}."


def test_the_folder_that_holds_a_file_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=rf"Give the folder that holds it, {tmp_path}\.$"):
        resolve_model("README.md")


def test_the_present_folder_is_named_in_full_and_an_empty_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    told = {
        ".": f"{tmp_path / 'sub'}: must hold config.json, does not. Give",
        "..": f"{tmp_path}: must hold config.json, does not. Give",
        "": '"": must be a folder or a Hub id, is empty. Check the path.',
    }
    for name, message in told.items():
        for verb in (["inspect", name], ["generate", "--prompt", "x", "--model", name]):
            assert cli.main(verb) == 2
            assert capfd.readouterr().err.startswith(f"gpt-oss-mxfp4: {message}")
    assert cli.main(["verify", "."]) == 2
    assert capfd.readouterr().err.startswith(f"gpt-oss-mxfp4: {told['.']}")
