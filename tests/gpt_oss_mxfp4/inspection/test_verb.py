"""The inspect verb: facts of sound and broken folders and of repositories, from headers alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import DEMO_MODEL
from scripts.make_synthetic import SIZES
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.checkpoint.hub_stand_in import StandIn, serve
from tests.gpt_oss_mxfp4.checkpoint.small import ORIGINAL, small_tensors, write_folder
from tests.gpt_oss_mxfp4.checkpoint.test_checkpoint import bf16_tensors
from tests.gpt_oss_mxfp4.test_pull import files_of
from tests.sparse_checkpoint import make_sparse_checkpoint

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

Capture = pytest.CaptureFixture[str]

OF_20B = """\
FOLDER
  layout      Hugging Face names, experts in MXFP4
  variant     gpt-oss-20b
  weights     20.9 billion, 3.61 billion for a token, 5.26 bits each
  layers      24, 12 of them with a window of 128 tokens
  attention   64 query and 8 key-value heads of 64
  experts     32, 4 for a token, of 2880 x 2880
  vocabulary  201088 tokens
  context     131072 tokens
  files       1 file, 13.8 GB

tensors            count  dtype     size  share
expert codes          48  U8     9.56 GB  69.4%
expert scales         48  U8      597 MB   4.3%
expert biases         48  BF16   13.3 MB   0.1%
router                48  BF16   4.43 MB   0.0%
attention weights     96  BF16   1.27 GB   9.3%
attention biases      96  BF16    384 kB   0.0%
attention sinks       24  BF16   3.07 kB   0.0%
norms                 49  BF16    282 kB   0.0%
embedding              1  BF16   1.16 GB   8.4%
output matrix          1  BF16   1.16 GB   8.4%
all                  459         13.8 GB

memory        weights  KV cache  rotations  the rest      all
CPU           13.8 GB    403 MB    33.6 MB   1.07 GB  15.3 GB
GPU (Hopper)  13.8 GB    403 MB    16.8 MB   1.07 GB  15.3 GB
  KV cache: of one sequence of 8192 tokens, at most. On a CPU weights stay in the mapped file.

would run: yes
"""


def inspected(folder: Path, capfd: Capture, code: int = 0) -> dict[str, Any]:
    """The facts as JSON, after a look that text is printed too."""
    assert cli.main(["inspect", str(folder)]) == code
    text, _ = capfd.readouterr()
    assert text.startswith(f"{folder}\n")
    assert cli.main(["inspect", str(folder), "--json"]) == code
    out, err = capfd.readouterr()
    assert err == (
        f"gpt-oss-mxfp4: {folder}: would be refused, for the faults above\n" if code else ""
    )
    facts: dict[str, Any] = json.loads(out)
    assert facts["runs"] == (code == 0)
    assert list(facts) == [
        *("name", "runs", "layout", "variant", "config", "parameters", "files", "bytes"),
        *("tensors", "memory", "not_read", "notes", "faults"),
    ]
    return facts


def test_20b_is_told_from_its_header(tmp_path: Path, capfd: Capture) -> None:
    """Its 13.8 GB are a hole: whoever read them would take longer than a test may."""
    folder = make_sparse_checkpoint(tmp_path / "model", SIZES["20b"])
    assert cli.main(["inspect", str(folder)]) == 0
    assert capfd.readouterr() == (OF_20B.replace("FOLDER", str(folder)), "")


def test_no_byte_of_weight_is_read(tmp_path: Path) -> None:
    """The whole command, as the operating system saw it: what it read of the file's 13.8 GB."""
    folder = make_sparse_checkpoint(tmp_path / "model", SIZES["20b"])
    script = (
        "import builtins, io, sys\n"
        "reads = []\n"
        "class Counted(io.FileIO):\n"
        "    def read(self, size=-1):\n"
        "        piece = super().read(size); reads.append(len(piece)); return piece\n"
        "    def readinto(self, buffer):\n"
        "        count = super().readinto(buffer); reads.append(count); return count\n"
        "opened = builtins.open\n"
        "def open(file, mode='r', *rest, **named):\n"
        "    if str(file).endswith('.safetensors'):\n"
        "        return Counted(file, mode.replace('b', ''))\n"
        "    return opened(file, mode, *rest, **named)\n"
        "builtins.open = io.open = open\n"
        "import mmap; del mmap.mmap\n"
        "from gpt_oss_mxfp4.cli import main\n"
        "assert main(['inspect', sys.argv[1], '--json']) == 0\n"
        "print(sum(reads), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    with (folder / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    assert int(done.stderr) == 8 + header  # its length alone first, to bound all headers together


def test_120b_is_known_by_its_sizes(tmp_path: Path, capfd: Capture) -> None:
    facts = inspected(make_sparse_checkpoint(tmp_path / "model", SIZES["120b"]), capfd)
    assert (facts["variant"], facts["bytes"]) == ("120b", 65_248_815_744)
    assert facts["parameters"]["total"] == 116_829_156_672
    assert facts["memory"]["gpu"]["weights"] == facts["bytes"]


def test_json_has_the_numbers(capfd: Capture) -> None:
    facts = inspected(CHECKPOINT, capfd)
    checkpoint = open_checkpoint(CHECKPOINT)
    assert facts["variant"] == "other"
    assert facts["layout"] == "huggingface"
    assert facts["config"]["hidden_size"] == checkpoint.config.hidden_size
    assert sum(row["count"] for row in facts["tensors"]) == len(checkpoint.entries)
    assert facts["bytes"] == sum(entry.nbytes for entry in checkpoint.entries.values())
    assert facts["files"] == {file.name: file.stat().st_size for file in checkpoint.files}
    assert facts["faults"] == []


def test_what_is_not_read_is_told(tmp_path: Path, capfd: Capture) -> None:
    folder = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    (folder / "original").mkdir()
    (folder / "original" / "model.safetensors").write_bytes(b"1" * 5000)
    (folder / "original" / "loop").symlink_to(folder)
    (folder / "modeling_gpt_oss.py").write_text("raise SystemExit")
    (folder / "model.gguf").write_bytes(bytes(2**20))
    (folder / ".cache").mkdir()
    facts = inspected(folder, capfd)
    assert [(n["name"], n["files"], n["nbytes"]) for n in facts["not_read"]] == [
        ("model.gguf", 1, 2**20),
        ("modeling_gpt_oss.py", 1, 16),
        ("original/", 1, 5000),
    ]
    cli.main(["inspect", str(folder)])
    assert (
        "\nnot read\n"
        "  model.gguf (1.05 MB)\n"
        "  modeling_gpt_oss.py (16 B): code, which is never run\n"
        "  original/ (1 file, 5.00 kB): another copy of the weights, in OpenAI's own layout\n"
    ) in capfd.readouterr().out


def test_a_second_copy_in_the_files_is_told(tmp_path: Path, capfd: Capture) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors() | ORIGINAL})
    facts = inspected(folder, capfd)
    assert facts["notes"] == list(open_checkpoint(folder).notes)
    assert facts["tensors"][-2]["kind"] == "original/ names" or facts["tensors"][-1]["kind"] == (
        "original/ names"
    )


def test_faults_of_several_stages_are_told_at_once(tmp_path: Path, capfd: Capture) -> None:
    """The loader stops at the header that is cut; the config is wrong as well."""
    half = dict(list(small_tensors().items())[:20])
    files = {"a.safetensors": half, "b.safetensors": half}
    folder = write_folder(tmp_path, files, vocab_size=0)
    content = (folder / "b.safetensors").read_bytes()
    (folder / "b.safetensors").write_bytes(content[:-1])
    facts = inspected(folder, capfd, code=2)
    assert [fault["kind"] for fault in facts["faults"]] == ["bad config", "truncated file"]
    assert [fault["text"].split(":")[0] for fault in facts["faults"]] == [
        "config.json",
        "b.safetensors",
    ]
    assert sum(row["count"] for row in facts["tensors"]) == 40  # both headers can be read
    assert facts["memory"] == {}
    assert facts["config"] is facts["variant"] is facts["parameters"] is None


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        ({"model.safetensors": bf16_tensors()}, "huggingface-bf16"),
        ({"model.safetensors": ORIGINAL}, "original"),
        ({}, "empty"),
    ],
)
def test_layouts_that_are_refused_are_named(
    tmp_path: Path, capfd: Capture, files: Any, layout: str
) -> None:
    assert inspected(write_folder(tmp_path, files), capfd, code=2)["layout"] == layout


def test_a_folder_with_nothing_of_a_checkpoint_gets_no_report(
    tmp_path: Path, capfd: Capture
) -> None:
    assert cli.main(["inspect", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"gpt-oss-mxfp4: {tmp_path}: must hold config.json, does not. Give")


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with serve() as server:
        yield server


def inspect_hub(hub: StandIn, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", "inspect", *arguments],
        env=hub.environment(cache),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("ranges", [True, False])
def test_of_a_repository_headers_travel_and_no_weights(
    hub: StandIn, tmp_path: Path, ranges: bool
) -> None:
    hub.ranges = ranges
    hub.files = files_of(CHECKPOINT) | {"original/model.safetensors": b"1" * 5000}
    done = inspect_hub(hub, tmp_path, "test/tiny", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["name"] == "test/tiny"
    assert facts["not_read"][0]["nbytes"] == 5000
    assert sum(row["count"] for row in facts["tensors"]) == 79
    names = [name for name in hub.files if name.endswith(".safetensors") and "/" not in name]
    assert set(hub.served) == {*names, "config.json", "model.safetensors.index.json"} | {""}
    if ranges:
        assert all(hub.served[name] <= 2**16 for name in names)
        assert sum(len(hub.files[name]) for name in names) > 3_000_000
    assert not list(tmp_path.iterdir())  # nothing is left in the cache


def test_ctrl_c_leaves_no_headers_behind(hub: StandIn, tmp_path: Path) -> None:
    hub.files = files_of(CHECKPOINT)
    hub.hang_after = 1000
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt_oss_mxfp4", "inspect", "test/tiny"],
        env=hub.environment(tmp_path / "cache") | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not any(name.endswith(".safetensors") for name in hub.served):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert any((tmp_path / "tmp").iterdir())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert not list((tmp_path / "tmp").iterdir())


def test_a_header_longer_than_the_first_request_is_fetched_whole(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.files = files_of(DEMO_MODEL)
    content = hub.files["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length] + b" " * 100_000
    data = content[8 + length :]
    hub.files["model.safetensors"] = len(text).to_bytes(8, "little") + text + data
    done = inspect_hub(hub, tmp_path, "test/tiny")
    assert done.returncode == 0, done.stderr
    assert hub.served["model.safetensors"] == 8 + len(text)


def test_a_broken_repository_is_told_by_its_id(hub: StandIn, tmp_path: Path) -> None:
    hub.files = files_of(DEMO_MODEL)
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-1]
    done = inspect_hub(hub, tmp_path, "test/tiny")
    assert done.returncode == 2
    assert done.stdout.startswith("test/tiny\n  layout      Hugging Face names")
    assert "model.safetensors: must have 3920712 bytes by its header, has 3920711" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "gpt-oss-mxfp4: test/tiny: would be refused, for the faults above"
    )
    assert "gpt-oss-mxfp4-" not in done.stdout  # where the headers were put for a moment


def test_a_repository_that_is_not_there_ends_in_one_line(hub: StandIn, tmp_path: Path) -> None:
    done = inspect_hub(hub, tmp_path, "test/absent")
    assert (done.returncode, done.stdout) == (2, "")
    rule = "is no folder here, so it is taken for a Hub id, and cannot be downloaded"
    assert f"test/absent: {rule} (the Hub has no such repository, or it is private)" in done.stderr


def test_names_that_leave_the_folder_are_passed_over(hub: StandIn, tmp_path: Path) -> None:
    hub.files = files_of(DEMO_MODEL) | {
        "../escaped.safetensors": b"1234",
        "/escaped.safetensors": b"1234",
        "a/../../escaped.safetensors": b"1234",
    }
    done = inspect_hub(hub, tmp_path, "test/tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["files"]) == ["model.safetensors"]
