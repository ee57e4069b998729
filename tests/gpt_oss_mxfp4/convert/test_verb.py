"""The verb as a whole: what a kill, a full disk, a second process and wrong folders do to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.convert.journal import Journal, locked, work_folder
from gpt_oss_mxfp4.convert.plan import Output, computed
from gpt_oss_mxfp4.convert.shards import Shard
from gpt_oss_mxfp4.convert.writer import write_shard
from gpt_oss_mxfp4.options import Refused
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields, raw_file
from tests.gpt_oss_mxfp4.convert.folders import (
    as_original,
    assert_same_tensors,
    bf16,
    convert,
    original_config,
    read_tensors,
    refusal,
    small_model,
    write_checkpoint,
)
from tests.gpt_oss_mxfp4.convert.test_per_expert import QUARK, Producer

MAKING = "gpt_oss_mxfp4.convert.making"
"""Where the steps are looked up that tests replace."""

SHARDS = ("--to", "original", "--shard-gb", "0.000012")
"""Five files of the small model."""


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Path:
    return write_checkpoint(tmp_path / "source", small_model(rng), config_fields())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "gpt_oss_mxfp4", "convert", *map(str, arguments)]


def environment() -> dict[str, str]:
    return dict(os.environ)  # see NOTES F2


def test_a_kill_at_any_step_costs_nothing_but_time(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").write_text("{}")
    folder = tmp_path / "outputs"
    folder.mkdir()
    program = "tests.gpt_oss_mxfp4.convert.kill_everywhere"
    done = subprocess.run(
        [sys.executable, "-m", program, source, folder, "--to", "original", "--shard-gb", "3e-5"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 80


def test_kills_at_any_moment_cost_nothing_but_time(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of the command itself, while tensors of some megabytes are copied."""
    tensors = small_model(rng)
    tensors["model.embed_tokens.weight"] = bf16(np.zeros((2**18, 64)))
    tensors["lm_head.weight"] = bf16(np.ones((2**18, 64)))
    source = write_checkpoint(tmp_path / "source", tensors, config_fields(vocab_size=2**18))
    arguments = ("--to", "original", "--shard-gb", "0.03")
    whole, output = tmp_path / "whole", tmp_path / "output"
    begin = time.monotonic()
    subprocess.run(
        command(source, "--output", whole, *arguments),
        check=True,
        capture_output=True,
        env=environment(),
    )
    seconds = time.monotonic() - begin
    moments = random.Random(20261126)
    for _ in range(6):
        process = subprocess.Popen(
            command(source, "--output", output, *arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            process.wait(moments.uniform(0.2, 0.9) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if not output.exists() or work_folder(output).exists():  # killed right before the end, say
        last = command(source, "--output", output, *arguments)
        done = output.exists()  # then the journal may be gone and its folder not
        code = subprocess.run(last, check=False, capture_output=True, env=environment()).returncode
        assert code in ((0, 2) if done else (0,))
    assert files_of(output) == files_of(whole)
    assert not work_folder(output).exists()


def test_what_is_done_is_told_to_the_last_byte(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    (source / "tokenizer.json").write_text("{}")
    err = convert(capfd, source, "--output", output, *SHARDS)
    assert not (output / "tokenizer.json").exists()  # nor has original/ one
    assert re.sub(r" in \d+\.\d s, .*/s", "", err).splitlines() == [
        f"{source}: Hugging Face's layout with MXFP4 experts",
        f"writing {output}: 47.5 kB ...",
        f"writing {output}: 47.5 kB",
        f"reading {output} back: 47.5 kB ...",
        f"reading {output} back: 47.5 kB",
        "47.5 kB in 5 files, OpenAI's original/ layout, read back and found whole",
    ]


def test_a_run_after_a_kill_writes_only_what_is_missing(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    written: list[str] = []

    def write_two(shard: Shard, *rest: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write_shard(shard, *rest)
        written.append(shard.name)

    monkeypatch.setattr(MAKING + ".write_shard", write_two)
    with pytest.raises(KeyboardInterrupt):
        cli.main(["convert", str(source), "--output", str(output), *SHARDS])
    written.clear()
    assert not output.exists()

    def write(shard: Shard, *rest: Any) -> None:
        write_shard(shard, *rest)
        written.append(shard.name)

    monkeypatch.setattr(MAKING + ".write_shard", write)
    err = convert(capfd, source, "--output", output, *SHARDS)
    assert written == [f"model-0000{i}-of-00005.safetensors" for i in (3, 4, 5)]
    assert "of them by an earlier run" in err
    assert "unfinished conversion" not in err


def written_and_not_read_back(*arguments: Any) -> None:
    """A run that is killed right after its last file was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MAKING + ".verify_shard", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            cli.main(["convert", *map(str, arguments)])


def test_what_is_left_of_another_source_is_not_gone_on_with(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of another folder, though its files have the same names, sizes, times and headers."""
    output = tmp_path / "output"
    written_and_not_read_back(source, "--output", output, *SHARDS)
    assert len(list((work_folder(output) / "files").iterdir())) == 5
    other = small_model(np.random.default_rng(7))
    folder = write_checkpoint(tmp_path / "other", other, config_fields())
    for path in source.iterdir():
        shutil.copystat(path, folder / path.name)
    err = convert(capfd, folder, "--output", output, *SHARDS)
    assert "of an unfinished conversion of another source was removed\n" in err
    assert_same_tensors(read_tensors(output), as_original(other))


def test_what_is_left_of_a_source_that_was_written_again_is_not_gone_on_with(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    written_and_not_read_back(source, "--output", output, *SHARDS)
    other = small_model(np.random.default_rng(7))
    shutil.rmtree(source)
    write_checkpoint(source, other, config_fields())
    convert(capfd, source, "--output", output, *SHARDS)
    assert_same_tensors(read_tensors(output), as_original(other))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("halves", "--shard-gb", "1.2e-5"), ("interleaved", "--shard-gb", "1.2e-5")),
        (("halves", "--shard-gb", "1.2e-5"), ("halves", "--shard-gb", "1.15e-5")),
    ],
    ids=["order of gate and up", "tensors in other files of the same names"],
)
def test_what_is_left_of_other_options_is_not_gone_on_with(
    before: tuple[str, ...],
    after: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    saved = Producer("weight", QUARK).save(small_model(rng))
    config = config_fields(quantization_config=QUARK)
    source = write_checkpoint(tmp_path / "source", saved, config)
    output, whole = tmp_path / "output", tmp_path / "whole"
    written_and_not_read_back(source, "--output", output, "--gate-up", *before)
    names = {path.name for path in (work_folder(output) / "files").iterdir()}
    convert(capfd, source, "--output", output, "--gate-up", *after)
    convert(capfd, source, "--output", whole, "--gate-up", *after)
    assert files_of(output) == files_of(whole)
    assert names < set(files_of(output))


def test_an_output_with_another_config_is_not_called_finished(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    finished_with_its_journal(source, output)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "swiglu_limit": 6.5}))
    assert refusal(capfd, source, "--output", output, *SHARDS).endswith("name another folder")


def test_a_journal_that_cannot_be_read_is_no_journal(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    work = work_folder(output)
    for text in ("", "[]", '{"shards": 3}', '{"task": {}, "shards": {"a": {}}}'):
        (work / "files").mkdir(parents=True)
        (work / "journal.json").write_text(text)
        (work / "files/model-00001-of-00005.safetensors").write_text("half of it")
        convert(capfd, source, "--output", output, *SHARDS)
        assert len(read_tensors(output)) == 33
        for path in output.iterdir():
            path.unlink()
        output.rmdir()


@pytest.mark.parametrize(
    "record",
    [3, {}, {"digests": {}}, {"losses": {}}, {"digests": [], "losses": {}}],
)
def test_a_journal_with_a_record_that_is_none_is_no_journal(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], record: object
) -> None:
    output = tmp_path / "output"
    written_and_not_read_back(source, "--output", output, *SHARDS)
    path = work_folder(output) / "journal.json"
    journal = json.loads(path.read_text())
    journal["shards"]["model-00002-of-00005.safetensors"] = record
    path.write_text(json.dumps(journal))
    assert "by an earlier run" not in convert(capfd, source, "--output", output, *SHARDS)
    assert len(read_tensors(output)) == 33


def test_what_is_renamed_is_on_the_disk_before_and_its_name_right_after(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, files = tmp_path / "output", work_folder(tmp_path / "output") / "files"
    journal, weights = files.parent / "journal.json", files / "model-00001-of-00001.safetensors"
    synced: list[Path] = []
    renamed: list[Path] = []
    fsync, rename = os.fsync, Path.rename

    def sync(fd: int) -> None:
        fsync(fd)
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))

    def move(place: Path, target: Path) -> Path:
        assert place in synced
        if target == output:
            assert set(files.iterdir()) - {weights} < set(synced)
        if renamed:
            assert renamed[-1].parent in synced
        synced.clear()
        renamed.append(target)
        return rename(place, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", move)
    (source / "tokenizer.json").write_text("{}")
    convert(capfd, source, "--to", "bf16", "--output", output)
    assert renamed == [journal, weights, journal, output]
    assert output.parent in synced


def test_an_output_that_appears_meanwhile_is_left_alone_and_nothing_is_lost(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"

    def write_both(shard: Shard, *rest: Any) -> None:
        write_shard(shard, *rest)
        output.mkdir(exist_ok=True)
        (output / "mine").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(MAKING + ".write_shard", write_both)
        message = refusal(capfd, source, "--output", output, *SHARDS)
    assert message.endswith(f"--output: {output} cannot be made (Directory not empty)")
    assert files_of(output) == {"mine": b"mine"}
    shutil.rmtree(output)
    err = convert(capfd, source, "--output", output, *SHARDS)
    assert "47.5 kB of them by an earlier run" in err
    assert len(read_tensors(output)) == 33


def finished_with_its_journal(source: Path, output: Path) -> None:
    """A run that is killed between the last rename and the removal of the journal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "remove", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            cli.main(["convert", str(source), "--output", str(output), *SHARDS])
    assert (work_folder(output) / "journal.json").is_file()
    assert output.is_dir()


def raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_an_output_that_was_emptied_since_is_not_called_whole(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    finished_with_its_journal(source, output)
    for name in ("config.json", "model-00003-of-00005.safetensors"):
        data = (output / name).read_bytes()
        (output / name).unlink()
        assert refusal(capfd, source, "--output", output, *SHARDS).endswith(
            f"--output: {output} exists already; remove it or name another folder"
        )
        (output / name).write_bytes(data)
    cut = output / "model-00003-of-00005.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    assert refusal(capfd, source, "--output", output, *SHARDS).endswith("name another folder")
    for path in output.iterdir():
        path.unlink()
    assert refusal(capfd, source, "--output", output, *SHARDS).endswith("name another folder")
    output.rmdir()
    convert(capfd, source, "--output", output, *SHARDS)
    assert len(read_tensors(output)) == 33
    assert not work_folder(output).exists()


def test_an_output_that_came_beside_an_unfinished_conversion_is_left_alone(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, aside = tmp_path / "output", tmp_path / "aside"
    convert(capfd, source, "--output", aside, *SHARDS)
    written_and_not_read_back(source, "--output", output, *SHARDS)
    aside.rename(output)
    assert refusal(capfd, source, "--output", output, *SHARDS).endswith("name another folder")
    assert len(read_tensors(output)) == 33


def test_an_output_that_was_damaged_since_is_refused_and_left_alone(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    finished_with_its_journal(source, output)
    path = output / "model-00002-of-00005.safetensors"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    damaged = files_of(output)
    message = refusal(capfd, source, "--output", output, *SHARDS)
    assert message.splitlines()[-1].endswith(
        f" must read back as it was written, does not. Remove {output} and run the command again."
    )
    assert files_of(output) == damaged
    path.write_bytes(sound)
    err = convert(capfd, source, "--output", output, *SHARDS)
    assert f"{output}: was finished by an earlier run\n" in err
    assert not work_folder(output).exists()


@pytest.mark.parametrize("name", ["", "lock", "files", "journal.tmp", "journal.json"])
def test_a_link_in_the_work_folder_s_place_is_refused_and_not_followed(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    output, victim = tmp_path / "output", tmp_path / "victim"
    (victim / "files").mkdir(parents=True)
    (victim / "files/mine").write_text("mine")
    (victim / "mine").write_text("mine")
    link = work_folder(output) / name if name else work_folder(output)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim if name in ("", "files") else victim / "mine")
    message = refusal(capfd, source, "--output", output, *SHARDS)
    assert message.endswith(f"--output: {link} must be convert's own, is a link; remove it")
    assert (victim / "files/mine").read_text() == "mine"
    assert (victim / "mine").read_text() == "mine"
    link.unlink()
    link.symlink_to("nowhere")
    assert "is a link; remove it" in refusal(capfd, source, "--output", output, *SHARDS)


def test_a_tensor_of_fewer_bytes_than_were_planned_leaves_no_file(tmp_path: Path) -> None:
    piece = computed(8, lambda read: np.zeros(7, np.uint8))
    shard = Shard("x.safetensors", (Output("x", "U8", (8,), (piece,)),))
    with locked(tmp_path / "output"):
        journal = Journal(tmp_path / "output", {})
        journal.open()
        with pytest.raises(AssertionError, match="x: planned 8 bytes, made 7"):
            write_shard(shard, lambda *_: np.empty(0, np.uint8), journal, lambda _: None)
        assert list(journal.files.iterdir()) == []


def test_a_second_process_is_refused(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    with locked(output):
        message = refusal(capfd, source, "--output", output, *SHARDS)
    assert message == (
        f"--output: another process is writing {output}; wait for it, or name another folder"
    )
    assert not work_folder(output).exists()


def test_a_place_that_cannot_be_locked_is_refused(
    source: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    output = tmp_path / "output"
    message = (
        f"--output: {output} cannot be locked (No locks available); name a folder on another disk"
    )
    assert refusal(capfd, source, "--output", output, *SHARDS) == message
    assert not work_folder(output).exists()


def test_a_tokenizer_that_would_not_be_written_is_refused(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--output", tmp_path / "output", "--tokenizer", source, *SHARDS)
    assert refusal(capfd, source, *arguments) == (
        "--tokenizer: --to original writes no tokenizer; leave out --tokenizer"
    )


def test_a_second_process_waits_until_the_first_has_removed_everything(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with locked(output):
        journal = Journal(output, {})
        journal.open()
        (journal.files / "model.safetensors").touch()
        journal.remove()
        assert [path.name for path in work_folder(output).iterdir()] == ["lock"]
        with pytest.raises(Refused, match="another process is writing"), locked(output):
            pass
    assert not work_folder(output).exists()


def test_a_lock_that_is_another_process_s_by_now_is_left_to_it(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with contextlib.ExitStack() as second:
        with locked(output):
            shutil.rmtree(work_folder(output))  # by hand, say
            second.enter_context(locked(output))
        assert [path.name for path in work_folder(output).iterdir()] == ["lock"]
    assert not work_folder(output).exists()


@pytest.mark.parametrize("files", [0, 2])
def test_a_full_disk_is_told_and_what_is_whole_is_kept(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], files: int
) -> None:
    """A limit on the size of files fails in the same place, with another reason."""
    output = tmp_path / "output"
    sizes = {0: 2_000, 2: 13_300}
    shards = ("--to", "original", "--shard-gb", {0: "0.000012", 2: "0.000014"}[files])
    done = subprocess.run(
        command(source, "--output", output, *shards),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[files],) * 2),
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"gpt-oss-mxfp4: --output: {output} cannot be written (File too large)")
    assert not output.exists()
    if files:
        assert f"; {files} of " in last
        assert last.endswith("files are done and kept for another run")
        names = [path.name for path in (work_folder(output) / "files").iterdir()]
        assert len(names) == files
        assert not any(name.endswith(".part") for name in names)
    else:
        assert not work_folder(output).exists()
    convert(capfd, source, "--output", output, *shards)
    assert len(read_tensors(output)) == 33


def test_too_little_room_is_told_before_anything_is_written(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    message = refusal(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert message == f"--output: {tmp_path / 'output'} needs 47.5 kB more, 1.00 kB are free there"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_no_room_is_asked_for_what_is_there_already(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 0

    written_and_not_read_back(source, "--output", tmp_path / "output", *SHARDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    err = convert(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert "47.5 kB, 47.5 kB of them by an earlier run" in err


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: flipped(data, 0),
        lambda data: flipped(data, 20),
        lambda data: flipped(data, -1),
        lambda data: data.replace(b'"shape":[64,32]', b'"shape":[32,64]'),
    ],
    ids=["length of the header", "its JSON", "last tensor", "a shape"],
)
def test_what_reads_back_otherwise_is_refused_and_written_again_by_the_next_run(
    damage: Callable[[bytes], bytes],
    source: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "output"

    def write_and_damage(shard: Shard, read: Any, journal: Any, advance: Any) -> None:
        write_shard(shard, read, journal, advance)
        if shard.name.startswith("model-00002"):
            path = journal.files / shard.name
            damaged = damage(path.read_bytes())
            assert damaged != path.read_bytes()
            path.write_bytes(damaged)

    monkeypatch.setattr(MAKING + ".write_shard", write_and_damage)
    message = refusal(capfd, source, "--output", output, *SHARDS)
    assert message.startswith("model-00002-of-00005.safetensors: ")
    assert " must read back as it was written, does not. Check the disk" in message
    assert not output.exists()
    monkeypatch.setattr(MAKING + ".write_shard", write_shard)
    convert(capfd, source, "--output", output, *SHARDS)
    convert(capfd, output, "--output", tmp_path / "hf")
    assert_same_tensors(read_tensors(tmp_path / "hf"), read_tensors(source))


def test_what_cannot_be_read_back_is_written_again_by_the_next_run(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        message = refusal(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert message == (
        "model-00001-of-00005.safetensors: the file ([Errno 5] Input/output error) must read back as it was"
        " written, does not. Check the disk and the memory of this machine, and run the command again: it goes"
        " on from here."
    )
    err = convert(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert "kB of them by an earlier run" in err


def test_reads_that_give_few_bytes_at_a_time_damage_nothing(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: real(fd, min(count, 7), at))
    convert(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert len(read_tensors(tmp_path / "output")) == 33


def test_a_source_that_changes_meanwhile_is_refused(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def touch(shard: Shard, *rest: Any) -> None:
        write_shard(shard, *rest)
        os.utime(next(source.glob("*.safetensors")), (1, 1))

    monkeypatch.setattr(MAKING + ".write_shard", touch)
    message = refusal(capfd, source, "--output", tmp_path / "output", *SHARDS)
    assert message == f"{source}: was changed while it was read; run the command again"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_wrong_folders_end_in_one_message(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    output = tmp_path / "output"
    for arguments, message in (
        (
            (tmp_path / "none", "--output", output),
            f"{tmp_path / 'none'}: must be a folder with a checkpoint, is not",
        ),
        (
            (tmp_path / ("x" * 300), "--output", output),
            f"{tmp_path / ('x' * 300)}: must be a folder with a checkpoint, is not",
        ),
        (
            (source, "--output", output, "--tokenizer", tmp_path / ("x" * 300), "--to", "bf16"),
            f"--tokenizer: {tmp_path / ('x' * 300)} must be a folder with tokenizer.json, is not",
        ),
        (
            (source, "--output", output, "--json", tmp_path / ("x" * 300) / "x", *SHARDS),
            f"--json: {tmp_path / ('x' * 300) / 'x'} cannot be written (File name too long)",
        ),
        (
            (tmp_path / "file", "--output", output),
            f"{tmp_path / 'file'}: must be a folder with a checkpoint, is not",
        ),
        (
            (source, "--output", tmp_path / "there", *SHARDS),
            f"--output: {tmp_path / 'there'} exists already; remove it or name another folder",
        ),
        (
            (source, "--output", tmp_path / "dangling", *SHARDS),
            f"--output: {tmp_path / 'dangling'} exists already; remove it or name another folder",
        ),
        (
            (source, "--output", source / "original", *SHARDS),
            f"--output: {source / 'original'} must not lie inside the source; name a folder elsewhere",
        ),
        (
            (source, "--output", source / "../source/./x", *SHARDS),
            f"--output: {source / '../source/x'} must not lie inside the source; name a folder elsewhere",
        ),
        (
            (source, "--output", tmp_path / "file/below", *SHARDS),
            f"--output: {tmp_path / 'file/below'} cannot be made (Not a directory)",
        ),
        (
            (source, "--output", tmp_path / "loop/x", *SHARDS),
            f"--output: {tmp_path / 'loop/x'} cannot be made (Too many levels of symbolic links)",
        ),
        (
            (source, "--output", tmp_path / ("x" * 300), *SHARDS),
            f"--output: {tmp_path / ('x' * 300)} cannot be made (File name too long)",
        ),
        ((source, "--output", "/", *SHARDS), "--output: must name a folder to make, got /"),
        (
            (source, "--output", output, "--json", tmp_path / "none/report", *SHARDS),
            f"--json: {tmp_path / 'none/report'} cannot be written (No such file or directory)",
        ),
        (
            (source, "--output", output, "--json", "/proc/report", *SHARDS),
            "--json: /proc/report cannot be written (No such file or directory)",
        ),
        (
            (source, "--output", output, "--tokenizer", tmp_path / "there", "--to", "bf16"),
            f"--tokenizer: {tmp_path / 'there'} must be a folder with tokenizer.json, is not",
        ),
        (
            (source, "--output", output),
            f"{source}: is in Hugging Face's layout with MXFP4 experts already; --to names another",
        ),
    ):
        assert refusal(capfd, *arguments) == message
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "dangling",
            "file",
            "loop",
            "source",
            "there",
        ]
        assert list((tmp_path / "there").iterdir()) == []


def test_a_report_that_cannot_be_written_is_written_by_the_next_run(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, report = tmp_path / "output", tmp_path / "report.json"
    arguments = (source, "--output", output, "--json", report, *SHARDS)

    def fail(*_: Any) -> None:
        raise Refused(f"--json: {report} cannot be written (No space left on device)")

    monkeypatch.setattr("gpt_oss_mxfp4.convert.report.replace_text", fail)
    for _ in range(2):  # as made, and as found
        assert refusal(capfd, *arguments).endswith(
            f"--json: {report} cannot be written (No space left on device); all else is done: run the command"
            " again for it"
        )
        assert len(read_tensors(output)) == 33
    monkeypatch.undo()
    convert(capfd, *arguments)
    files = json.loads((output / "model.safetensors.index.json").read_text())["weight_map"]
    assert json.loads(report.read_text()) == {
        "source": str(source),
        "from": "Hugging Face's layout with MXFP4 experts",
        "output": str(output),
        "notes": [],
        "tensors": {
            name: {
                "file": files[name],
                "dtype": tensor.dtype,
                "shape": list(tensor.data.shape),
                "blake2b": hashlib.blake2b(tensor.data.tobytes(), digest_size=32).hexdigest(),
            }
            for name, tensor in read_tensors(output).items()
        },
    }
    assert not work_folder(output).exists()


def test_a_report_may_not_lie_where_it_replaces_what_is_converted(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, link = tmp_path / "output", tmp_path / "link.json"
    link.symlink_to(source / "config.json")
    [weights] = source.glob("*.safetensors")
    before = files_of(source)
    for report in (
        source / "config.json",
        weights,
        source / "../source/new.json",
        link,
        output,
        output / "report.json",
        work_folder(output) / "report.json",
    ):
        message = refusal(capfd, source, "--output", output, "--json", report, *SHARDS)
        assert message == (
            f"--json: {report} must not lie inside the source or the output; name a file elsewhere"
        )
        assert files_of(source) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "source"]


def test_hostile_sources_end_in_one_message_and_leave_nothing(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    shard = next(source.glob("*.safetensors"))
    whole, config = shard.read_bytes(), (source / "config.json").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    (source / "modeling.py").write_text("raise SystemExit(9)")

    def refused(part: str) -> None:
        message = refusal(capfd, source, "--output", tmp_path / "output", *SHARDS)
        assert part in message
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    for cut in (0, 7, 8, 9, end - 1, end, len(whole) - 1):
        shard.write_bytes(whole[:cut])
        refused(shard.name)
    shard.write_bytes(raw_file(b"{}", b"", length=2**60))
    refused("header length must be at most 8388608 bytes")
    shard.write_bytes(whole + b"\0")
    refused("1 too many")
    shard.write_bytes(whole.replace(b'"U8"', b'"I8"', 1))
    refused("must be U8, got I8")
    shard.write_bytes(whole.replace(b"lm_head.weight", b"lm_head.weighs", 1))
    refused("lm_head.weight must be there, is missing")
    shard.write_bytes(whole)
    for text, part in (
        (b"", "is not valid JSON"),
        (b"[]", "must be a JSON object"),
        (
            config.replace(b'"num_local_experts": 2', b'"num_local_experts": 4096'),
            "must have num_local_experts = 4096 experts, got 2 in ",
        ),
        (
            config.replace(b'_size": 64', b'_size": 65536').replace(
                b'_size": 32', b'_size": 65536'
            ),
            "an expert's matrix must have at most",
        ),
        (config.replace(b'"yarn"', b'"linear"'), 'rope_type must be "yarn"'),
        (config.replace(b"1e-05", b"1e-06"), "rms_norm_eps must be 1e-05 in the original layout"),
        (
            config.replace(b'"truncate": false', b'"truncate": true'),
            "truncate must be false in the original",
        ),
    ):
        assert text != config
        (source / "config.json").write_bytes(text)
        refused(part)
    (source / "config.json").unlink()
    refused("must hold config.json, does not")
    (source / "config.json").write_bytes(config)
    (source / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../b.safetensors"}}'
    )
    refused("weight_map must name *.safetensors files of its own folder")


def test_a_hostile_config_of_the_original_layout_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    for change, part in (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be an integer from 1 to 1024"),
        (
            {"rope_scaling_factor": "32"},
            'rope_scaling_factor must be a number above 0 and at most 1e+30, got "32"',
        ),
        ({"num_experts": None}, "num_local_experts must be an integer"),
        ({"head_dim": 9}, "head_dim must be even"),
        (
            {"initial_context_length": 2**22 + 1},
            "initial_context_length must be an integer from 1 to 4194304, got 4194305",
        ),
        ({"rope_scaling_factor": 1e30}, "max_position_embeddings must be an integer"),
    ):
        fields = {**original_config(), **change}
        folder = tmp_path / "-".join(map(str, change.values()))
        source = write_checkpoint(folder / "source", as_original(small_model(rng)), fields)
        message = refusal(capfd, source, "--output", folder / "output")
        assert message.startswith(f"{source / 'config.json'}: ")
        assert part in message
        assert [path.name for path in folder.iterdir()] == ["source"]


def test_ctrl_c_keeps_what_is_whole(source: Path, tmp_path: Path) -> None:
    """The hidden folder is no leftover: the next run goes on from it."""
    output = tmp_path / "output"
    program = (
        "import os, signal, sys; from gpt_oss_mxfp4 import cli; from gpt_oss_mxfp4.convert import making\n"
        "real = making.write_shard\n"
        "def write(shard, *rest):\n"
        "    real(shard, *rest); os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(60)\n"
        "making.write_shard = write\n"
        f"sys.exit(cli.main(['convert', {str(source)!r}, '--output', {str(output)!r}, *{SHARDS!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith("\ngpt-oss-mxfp4: interrupted\n")
    assert [path.name for path in (work_folder(output) / "files").iterdir()] == [
        "model-00001-of-00005.safetensors"
    ]
