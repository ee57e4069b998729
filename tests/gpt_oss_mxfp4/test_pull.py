"""The pull verb against a stand-in for the Hub: what travels, and how often, when it is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.checksums import hub_checksum
from gpt_oss_mxfp4.options import DEMO_MODEL
from gpt_oss_mxfp4.quantity import bytes_text
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.checkpoint.hostile import CASES, ONE, TWO, write_sound
from tests.gpt_oss_mxfp4.checkpoint.hub_stand_in import StandIn, serve

WEIGHTS = "model.safetensors"
READ = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with serve() as server:
        demo = files_of(DEMO_MODEL)
        server.files = {**demo, f"original/{WEIGHTS}": b"1234", "metal/model.bin": b"1234"}
        yield server


def start(
    hub: StandIn,
    cache: Path,
    *arguments: str,
    offline: bool = False,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gpt_oss_mxfp4", *arguments],
        env=hub.environment(cache, offline=offline),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def run(hub: StandIn, cache: Path, *arguments: str, offline: bool = False) -> tuple[int, str, str]:
    process = start(hub, cache, *arguments, offline=offline)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def size(hub: StandIn) -> int:
    return len(hub.files[WEIGHTS])


def partial_bytes(folder: Path) -> int:
    """Read while files come and go, which ``os.walk`` takes."""
    found = [os.path.join(top, n) for top, _, names in os.walk(folder) for n in names]
    return sum(os.stat(path).st_size for path in found if path.endswith(".part"))


def wait_for_bytes(folder: Path, nbytes: int, process: subprocess.Popen[str]) -> None:
    """Waits until a pull has got so far, at most as long as any."""
    deadline = time.monotonic() + 120
    while partial_bytes(folder) < nbytes:
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.01)


def kill_after(hub: StandIn, cache: Path, nbytes: int, *arguments: str) -> None:
    """Lets a pull get so far, and kills it."""
    hub.hang_after = nbytes
    process = start(hub, cache, *arguments)
    wait_for_bytes(cache, nbytes, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.hang_after = None
    hub.released.set()


def test_only_what_is_read_travels_once_and_the_folder_is_printed(
    hub: StandIn, tmp_path: Path
) -> None:
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    folder = Path(out.removesuffix("\n"))
    assert {file.name for file in folder.iterdir()} == READ | {"chat_template.jinja"}
    assert hub.served[WEIGHTS] == size(hub)
    assert hub.downloads == READ | {"chat_template.jinja"}
    assert len(open_checkpoint(folder).entries) == 79
    assert "downloading test/tiny: 3.92 MB in " in err
    assert not partial_bytes(tmp_path)
    hub.requested.clear()
    assert run(hub, tmp_path, "pull", "test/tiny", offline=True) == (0, out, "")
    assert hub.requested == []


def test_a_killed_pull_goes_on_where_it_stopped(hub: StandIn, tmp_path: Path) -> None:
    kill_after(hub, tmp_path, 2_000_000, "pull", "test/tiny")
    assert not list(tmp_path.rglob("snapshots/*/*.safetensors"))  # nothing looks whole
    had = partial_bytes(tmp_path)
    hub.served.clear()
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert hub.served[WEIGHTS] == size(hub) - had
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not partial_bytes(tmp_path)


def test_the_bar_tells_what_an_earlier_run_has_fetched_from_what_comes_now(
    hub: StandIn, tmp_path: Path
) -> None:
    kill_after(hub, tmp_path, 2_000_000, "pull", "test/tiny")
    had = partial_bytes(tmp_path)
    code, _, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert f"test/tiny: 3.92 MB, {bytes_text(had)} of them by an earlier run ...\n" in err
    assert f"test/tiny: {bytes_text(size(hub) - had)} in " in err


def test_a_killed_pull_into_a_folder_goes_on_where_it_stopped(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    kill_after(hub, tmp_path, 2_000_000, *pull)
    assert not (output / WEIGHTS).exists()
    had = partial_bytes(output)
    hub.served.clear()
    code, out, err = run(hub, tmp_path, *pull)
    assert (code, out) == (0, f"{output}\n"), err
    assert hub.served[WEIGHTS] == size(hub) - had
    assert (output / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    checksum = hub_checksum(output / WEIGHTS)
    assert checksum is not None
    assert checksum.digest == hashlib.sha256(hub.files[WEIGHTS]).hexdigest()
    hub.served.clear()
    assert run(hub, tmp_path, *pull)[0] == 0
    assert not hub.served[WEIGHTS]


def test_damage_in_what_came_before_costs_a_second_download(hub: StandIn, tmp_path: Path) -> None:
    kill_after(hub, tmp_path, 2_000_000, "pull", "test/tiny")
    [partial] = tmp_path.rglob("*.part")
    content = partial.read_bytes()
    partial.write_bytes(b"\0" * 1000 + content[1000:])
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_connection_that_breaks_is_opened_again_where_it_broke(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.cut_after = 1_000_000
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert hub.served[WEIGHTS] == size(hub)
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_busy_server_is_asked_again(hub: StandIn, tmp_path: Path) -> None:
    hub.busy = 2
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_server_that_stops_sending_is_asked_again(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = {**hub.environment(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    monkeypatch.setattr(hub, "environment", lambda *_, **__: impatient)
    hub.hang_after = 2_000_000
    process = start(hub, tmp_path, "pull", "test/tiny")
    wait_for_bytes(tmp_path, 2_000_000, process)
    hub.hang_after = None
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_nothing_but_the_revision_is_asked_for(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "config.json").write_bytes(hub.files["config.json"])
    code, _, err = run(
        hub, tmp_path, "pull", "test/tiny", "--revision", "v2", "--output", str(output)
    )
    assert code == 0, err
    asked = {path for path in hub.requested if "/revision/" in path}
    assert asked == {"/api/models/test/tiny/revision/v2"}


def test_weights_that_are_others_since_are_fetched_once(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    assert run(hub, tmp_path, *pull)[0] == 0
    hub.files[WEIGHTS] = hub.files[WEIGHTS][:-1] + b"?"
    hub.served.clear()
    code, _, err = run(hub, tmp_path, *pull)
    assert code == 0, err
    assert (output / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.served[WEIGHTS] == size(hub)


def test_two_pulls_at_once_fetch_a_file_once(hub: StandIn, tmp_path: Path) -> None:
    hub.hang_after = 2_000_000
    first = start(hub, tmp_path, "pull", "test/tiny")
    wait_for_bytes(tmp_path, 2_000_000, first)
    second = start(hub, tmp_path, "pull", "test/tiny")
    time.sleep(0.5)  # enough for it to wait for the file, most often
    hub.hang_after = None
    hub.released.set()
    for process in (first, second):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.served[WEIGHTS] == size(hub)


def test_a_server_without_ranges_serves_too(hub: StandIn, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cut_after = 1_000_000
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert code == 0, err
    assert (Path(out.strip()) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_shards_come_side_by_side(hub: StandIn, tmp_path: Path) -> None:
    hub.files = files_of(CHECKPOINT)
    code, out, err = run(hub, tmp_path, "pull", "test/tiny", "--output", str(tmp_path / "model"))
    assert code == 0, err
    for name, content in hub.files.items():
        assert (tmp_path / "model" / name).read_bytes() == content
        if name.endswith(".safetensors"):
            assert hub.served[name] == len(content)
    assert run(hub, tmp_path, "verify", out.strip())[:2] == (
        0,
        f"{tmp_path}/model: sound, 79 tensors, 3.10 MB; 9 checksums of the Hub match\n",
    )


def test_bytes_that_are_not_the_hubs_are_refused_and_not_kept(hub: StandIn, tmp_path: Path) -> None:
    sent = hub.files[WEIGHTS][:-1] + b"?"
    hub.swapped[WEIGHTS] = sent
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert (code, out) == (2, "")
    want, got = (hashlib.sha256(data).hexdigest() for data in (hub.files[WEIGHTS], sent))
    assert err.splitlines()[-1] == (
        f"gpt-oss-mxfp4: test/tiny: {WEIGHTS} must have the SHA-256 that the Hub tells, {want}, got {got}."
        " Pull it again."
    )
    assert not partial_bytes(tmp_path)
    assert not list(tmp_path.rglob("snapshots/*/*.safetensors"))


def test_a_shard_that_was_cut_short_since_is_fetched_again(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    assert run(hub, tmp_path, *pull)[0] == 0
    (output / WEIGHTS).write_bytes(hub.files[WEIGHTS][:1000])
    assert run(hub, tmp_path, *pull)[0] == 0
    assert (output / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_file_that_was_put_there_by_hand_is_not_fetched_again(
    hub: StandIn, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / WEIGHTS).write_bytes(hub.files[WEIGHTS])
    code, _, err = run(hub, tmp_path, "pull", "test/tiny", "--output", str(output))
    assert code == 0, err
    assert not hub.served[WEIGHTS]


def test_files_that_are_not_the_repository_s_are_not_replaced(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    pull = ("pull", "test/tiny", "--output", str(output))
    own = {name: hub.files[name][:-1] + b"?" for name in ("config.json", WEIGHTS)}
    own |= {"tokenizer.json": hub.files["tokenizer.json"], "notes.txt": b"mine"}
    for name, content in own.items():
        (output / name).write_bytes(content)
    code, out, err = run(hub, tmp_path, *pull)
    assert (code, out) == (2, "")
    assert err == (
        f"gpt-oss-mxfp4: {output}: 2 faults\nanother file (2):\n"
        "  config.json must be the repository's or not be there, is another file\n"
        "  model.safetensors must be the repository's or not be there, is another file\n"
        "  cure: Name a folder that is not there yet, or move the file out of this one.\n"
    )
    assert files_of(output) == own
    assert not hub.downloads
    for name in ("config.json", WEIGHTS):
        (output / name).unlink()
    code, _, err = run(hub, tmp_path, *pull)
    assert code == 0, err
    names = READ | {"chat_template.jinja"}
    assert files_of(output) == {name: hub.files[name] for name in names} | {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("chat_template.jinja", lambda data: data[:-1]),
        (WEIGHTS, lambda data: data[:-1] + b"!"),
    ],
    ids=["template", "weights"],
)
@pytest.mark.parametrize("newer", [False, True])
def test_what_was_edited_since_is_not_replaced(
    hub: StandIn, tmp_path: Path, name: str, edit: Callable[[bytes], bytes], newer: bool
) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    assert run(hub, tmp_path, *pull)[0] == 0
    if newer:
        release(hub)
    (output / name).write_bytes(edit((output / name).read_bytes()))
    before = files_of(output)
    hub.requested.clear()
    told = f"{name} must be the repository's or not be there, has changed since it was downloaded"
    cure = "Name a folder that is not there yet, or move the file out of this one"
    assert run(hub, tmp_path, *pull) == (2, "", f"gpt-oss-mxfp4: {output}: {told}. {cure}.\n")
    assert files_of(output) == before
    assert not hub.downloads
    (output / name).unlink()
    assert run(hub, tmp_path, *pull)[0] == 0
    assert files_of(output) == {each: hub.files[each] for each in before}


def release(hub: StandIn) -> None:
    """Makes another commit, in which all files that are read have changed."""
    files = dict(hub.files)
    for name in READ | {"chat_template.jinja"}:
        content = files[name]
        files[name] = content[:-1] + b"?" if name == WEIGHTS else content + b"\n"
    hub.release(files)


def test_a_newer_revision_replaces_what_is_as_it_was(hub: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    assert run(hub, tmp_path, *pull)[0] == 0
    before = files_of(output)
    release(hub)
    code, _, err = run(hub, tmp_path, *pull)
    assert code == 0, err
    assert files_of(output) == {name: hub.files[name] for name in before}
    assert not set(files_of(output).items()) & set(before.items())


@pytest.mark.parametrize("last", ["config.json", WEIGHTS])
@pytest.mark.parametrize("pulled", [False, True])
def test_a_folder_is_of_one_commit_wherever_its_branch_moves_meanwhile(
    hub: StandIn, tmp_path: Path, last: str, pulled: bool
) -> None:
    """What was looked at before it was replaced, and before weights travelled, is what came."""
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    if pulled:
        assert run(hub, tmp_path, *pull)[0] == 0
        release(hub)
    files, commit = hub.files, hub.commit

    def move(path: str) -> None:
        if path.endswith(f"/{last}") and hub.commit == commit:
            release(hub)

    hub.on_request = move
    code, _, err = run(hub, tmp_path, *pull)
    assert code == 0, err
    assert hub.commit != commit
    assert files_of(output) == {name: files[name] for name in READ | {"chat_template.jinja"}}
    assert not hub.downloads


@pytest.mark.parametrize("same_config", [False, True])
def test_another_repository_s_folder_is_refused(
    hub: StandIn, tmp_path: Path, same_config: bool
) -> None:
    output = tmp_path / "model"
    pull = ("pull", "test/tiny", "--output", str(output))
    assert run(hub, tmp_path, *pull)[0] == 0
    before = files_of(output)
    with serve() as other:  # whose weight files have other names
        other.commit = "f" * 40
        other.files = files_of(CHECKPOINT)
        if same_config:
            other.files |= {name: data for name, data in before.items() if name != WEIGHTS}
        code, out, err = run(other, tmp_path, *pull)
        assert (code, out) == (2, "")
        assert not other.downloads
    rule = "must be the repository's or not be there, is another repository's"
    assert f"{WEIGHTS} {rule}" in err
    assert (f"config.json {rule}" in err) != same_config
    assert "Name a folder that is not there yet, or move the file out of this one.\n" in err
    assert files_of(output) == before


@pytest.mark.parametrize(
    "name",
    [
        "header length 100000001",
        "index names '../model.safetensors'",
        "index names an absent shard",
        "config: num_hidden_layers 1000000000",
        "config: deep nesting",
        "tensor: blocks transposed",
    ],
)
def test_a_hostile_repository_ends_in_the_loaders_refusal(
    hub: StandIn, tmp_path: Path, name: str
) -> None:
    [case] = [case for case in CASES if case.name == name]
    folder = write_sound(tmp_path / "made")
    case.make(folder)
    hub.files = files_of(folder) | {"evil.py": b"raise SystemExit"}
    code, out, err = run(hub, tmp_path / "cache", "pull", "test/tiny")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    for piece in case.told:
        assert piece in err
    assert "evil.py" not in hub.downloads
    early = name.startswith(("config", "index names '"))  # told before weights travel
    assert early != any(hub.served[shard] for shard in (ONE, TWO))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test/absent"], "gpt-oss-mxfp4: test/absent: cannot be downloaded (the Hub has no such"),
        (
            ["test/tiny", "--revision", "absent"],
            "test/tiny: cannot be downloaded (the repository has no such revision)",
        ),
        (
            ["gpt-oss-20b"],
            "gpt-oss-20b: must be an existing folder or a Hub id of the form owner/name",
        ),
        (["."], "gpt-oss-mxfp4: .: must be a Hub id, is a folder here already"),
        (["test/tiny", "--output", __file__], f"--output: {__file__} cannot be made (File exists)"),
        (
            ["test/tiny", "--output", "/proc/x"],
            "--output: /proc/x cannot be made (No such file or directory)",
        ),
    ],
)
def test_what_cannot_be_pulled_ends_in_one_line_and_exit_code_2(
    hub: StandIn, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run(hub, tmp_path, "pull", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_full_disk_is_told_with_its_cure(hub: StandIn, tmp_path: Path) -> None:
    """A limit on the size of a file stands for it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    pull = ("pull", "test/tiny", "--output", str(tmp_path / "model"))
    process = start(hub, tmp_path, *pull, before=limit)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1] == (
        "gpt-oss-mxfp4: test/tiny: cannot be downloaded to the disk (File too large). Make room there, or pull"
        " it to another disk: gpt-oss-mxfp4 pull HUB_ID --output DIR."
    )
    assert partial_bytes(tmp_path) == 1_000_000
    hub.served.clear()
    assert run(hub, tmp_path, *pull)[0] == 0
    assert hub.served[WEIGHTS] == size(hub) - 1_000_000


@pytest.mark.parametrize(
    "verb", [("pull", "test/tiny"), ("generate", "--prompt", "x", "--model", "test/tiny")]
)
def test_a_cache_that_cannot_be_written_is_told_with_its_cure(
    hub: StandIn, verb: tuple[str, ...]
) -> None:
    code, out, err = run(hub, Path("/proc/absent"), *verb)
    assert (code, out) == (2, "")
    told = "test/tiny: cannot be downloaded to /proc/absent"
    assert err.splitlines()[-1].startswith(f"gpt-oss-mxfp4: {told}")
    assert err.endswith(
        "(No such file or directory). Check the permissions there, or name another folder: by HF_HOME, or by"
        " pull's --output.\n"
    )


def test_a_folder_in_which_nothing_came_is_not_left_behind(hub: StandIn, tmp_path: Path) -> None:
    pull = ("pull", "test/absent", "--output", str(tmp_path / "model"))
    assert run(hub, tmp_path, *pull)[0] == 2
    assert not (tmp_path / "model").exists()
    (tmp_path / "model").mkdir()  # which the user has made
    assert run(hub, tmp_path, *pull)[0] == 2
    assert (tmp_path / "model").exists()


def test_a_gated_repository_ends_in_one_line_that_tells_the_way(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.gated = True
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "needs `hf auth login`" in err


@pytest.mark.parametrize("to_folder", [False, True])
def test_no_network_ends_in_one_line(hub: StandIn, tmp_path: Path, to_folder: bool) -> None:
    pull = ("pull", "test/tiny", *(("--output", str(tmp_path / "model")) if to_folder else ()))
    told = "cannot be downloaded (HF_HUB_OFFLINE is set"
    told += ")" if to_folder else ", and no earlier download is here)"
    for offline in (True, False):
        code, out, err = run(hub, tmp_path, *pull, offline=offline)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert told in err
        hub.server_port = 9  # the discard service, which no machine of today runs
        told = "cannot be downloaded (the Hub cannot be reached: [Errno 111]"


def test_another_model_is_refused_before_its_weights_travel(hub: StandIn, tmp_path: Path) -> None:
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps({**config, "model_type": "llama"}).encode()
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert (code, out) == (2, "")
    assert 'model_type must be "gpt_oss", got "llama"' in err
    assert not hub.served[WEIGHTS]


def test_a_checkpoint_that_does_not_load_is_refused_once_it_is_there(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.files[WEIGHTS] = hub.files[WEIGHTS][:-1]
    code, out, err = run(hub, tmp_path, "pull", "test/tiny")
    assert (code, out) == (2, "")
    assert f"{WEIGHTS}: must have 3920712 bytes by its header, has 3920711: 1 are missing" in err
