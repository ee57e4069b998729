"""The verify verb on sound, refused and damaged checkpoints: what it says, where, and its exit code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint import content
from gpt_oss_mxfp4.checkpoint.index import TensorEntry, read_header
from gpt_oss_mxfp4.options import DEMO_MODEL
from tests.gpt_oss_mxfp4.checkpoint.small import raw_file

Verify = Callable[..., tuple[int, str, str]]
Capture = pytest.CaptureFixture[str]

NONSENSE = (
    "Weights like this make every answer nonsense: convert or train again from a sound checkpoint,"
    " or download this one again"
)
CHANGED = "The file was changed or damaged after it was downloaded: remove it and pull it again"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


@pytest.fixture
def verify(folder: Path, capfd: Capture) -> Verify:
    """Verifies the folder; gives exit code, standard output and standard error, the folder's path as FOLDER."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["verify", str(folder), *arguments])
        out, err = (text.replace(str(folder), "FOLDER") for text in capfd.readouterr())
        return code, out, "".join(f"{line}\n" for line in err.splitlines()[2:])

    return run


def weights(folder: Path) -> tuple[Path, dict[str, TensorEntry]]:
    [file] = folder.glob("*.safetensors")
    return file, read_header(file)


def write(folder: Path, name: str, value: bytes, at: int = 0) -> None:
    file, entries = weights(folder)
    with file.open("r+b") as stream:
        stream.seek(entries[name].begin + at)
        stream.write(value)


def test_a_sound_checkpoint_is_one_line_and_exit_code_0(verify: Verify) -> None:
    told = "FOLDER: sound, 79 tensors, 3.92 MB; no checksums of the Hub are there to compare\n"
    assert verify() == (0, told, "")


@pytest.mark.parametrize(
    ("value", "kind"), [(0x7F80, "inf"), (0xFF80, "-inf"), (0x7FC0, "nan"), (0xFFFF, "-nan")]
)
def test_a_dense_weight_that_is_not_finite_is_named_with_its_place(
    folder: Path, verify: Verify, value: int, kind: str
) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    _, entries = weights(folder)
    columns = entries[name].shape[1]
    write(folder, name, value.to_bytes(2, "little"), at=2 * (3 * columns + 5))
    assert verify() == (
        2,
        "",
        f"gpt-oss-mxfp4: FOLDER: {name} in {WEIGHTS} must hold finite numbers only, no NaN or infinity,"
        f" has 1, the first at [3, 5]. {NONSENSE}.\n",
    )


def test_the_largest_finite_weights_are_sound(folder: Path, verify: Verify) -> None:
    write(folder, "model.norm.weight", b"\x7f\x7f\x7f\xff")
    assert verify()[0] == 0


def test_a_scale_that_means_nan_is_named_with_its_place(folder: Path, verify: Verify) -> None:
    name = "model.layers.2.mlp.experts.down_proj_scales"
    _, entries = weights(folder)
    last = entries[name].nbytes - 1
    write(folder, name, b"\xff", at=last)
    write(folder, name, b"\xfe", at=0)  # 2^127 is a number
    place = [size - 1 for size in entries[name].shape]
    assert verify() == (
        2,
        "",
        f"gpt-oss-mxfp4: FOLDER: {name} in {WEIGHTS} must hold no scale byte 255, which means NaN, has 1, the"
        f" first at {place}. {NONSENSE}.\n",
    )


@pytest.mark.parametrize("zero", [0x00, 0x08, 0x80, 0x88])
def test_an_expert_of_zeros_of_either_sign_is_named(
    folder: Path, verify: Verify, zero: int
) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj_blocks"
    _, entries = weights(folder)
    nbytes = entries[name].nbytes // entries[name].shape[0]
    write(folder, name, bytes([zero]) * nbytes, at=nbytes)
    assert verify() == (
        2,
        "",
        f"gpt-oss-mxfp4: FOLDER: {name} in {WEIGHTS} must have codes other than zero in every expert, has none"
        f" in 1. {NONSENSE}.\n",
    )


@pytest.mark.parametrize("piece_bytes", [1000, 2**20])
@pytest.mark.parametrize("where", [0, 63, 64, -1])
def test_one_code_makes_an_expert(
    folder: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch, where: int, piece_bytes: int
) -> None:
    monkeypatch.setattr(content, "PIECE_BYTES", piece_bytes)
    name = "model.layers.0.mlp.experts.gate_up_proj_blocks"
    _, entries = weights(folder)
    nbytes = entries[name].nbytes // entries[name].shape[0]
    write(folder, name, bytes(nbytes), at=nbytes)
    write(folder, name, b"\x10", at=nbytes + where % nbytes)
    assert verify()[0] == 0


@pytest.mark.parametrize("piece_bytes", [64, 1000, 2**20])
def test_what_is_found_does_not_depend_on_the_pieces_that_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """Against NumPy on whole tensors, of a file with a fault of each kind in some tensors."""
    file, entries = weights(folder)
    small = {name: e for name, e in entries.items() if e.nbytes < 50_000}
    for name, entry in small.items():
        if entry.dtype == "BF16":
            write(folder, name, b"\x80\x7f" * 2, at=entry.nbytes - 4)
        elif name.endswith("_scales"):
            write(folder, name, b"\xff" * 3, at=entry.nbytes // 2)
        else:
            write(folder, name, bytes(entry.nbytes // entry.shape[0] * 2))
    monkeypatch.setattr(content, "PIECE_BYTES", piece_bytes)
    data = np.fromfile(file, np.uint8)
    counted: list[int] = []
    found = {
        f.text.split()[0]: f.text for f in content.check_content(file, entries, counted.append)
    }
    assert sum(counted) == file.stat().st_size
    for name, entry in entries.items():
        values = data[entry.begin : entry.end]
        if entry.dtype == "BF16":
            wrong = (values.view("<u2") & 0x7F80) == 0x7F80
        elif name.endswith("_scales"):
            wrong = values == 255
        else:
            experts = (values.reshape(entry.shape[0], -1) & 0x77 == 0).all(1)
            names = ", ".join(map(str, np.flatnonzero(experts)))
            assert found.get(name, "").endswith(f"has none in {names}") or not names
            assert bool(names) == (name in found)
            continue
        assert bool(wrong.any()) == (name in found), name
        if wrong.any():
            first = [int(i) for i in np.unravel_index(wrong.argmax(), entry.shape)]
            assert found[name].endswith(f"has {wrong.sum()}, the first at {first}")


def test_what_the_loader_refuses_and_bad_bytes_come_in_one_message(
    folder: Path, verify: Verify
) -> None:
    write(folder, "model.norm.weight", b"\x80\x7f")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "head_dim": 0, "vocab_size": 0}))
    code, out, err = verify()
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "gpt-oss-mxfp4: FOLDER: 3 faults"
    assert "  config.json: head_dim must be an integer from 1 to 4096, got 0" in err
    assert "  config.json: vocab_size must be an integer from 1 to" in err
    assert "  model.norm.weight in model.safetensors must hold finite numbers only" in err


def test_values_are_not_looked_for_where_a_header_is_not_sound(
    folder: Path, verify: Verify
) -> None:
    """The places it gives mean nothing."""
    write(folder, "model.norm.weight", b"\x80\x7f")
    with (folder / WEIGHTS).open("ab") as stream:
        stream.write(b"\0")
    code, _, err = verify()
    assert code == 2
    assert err.startswith(f"gpt-oss-mxfp4: FOLDER: {WEIGHTS}: must have ")
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_read_to_its_end_is_a_fault(folder: Path) -> None:
    file, entries = weights(folder)
    write(folder, "model.embed_tokens.weight", b"\x80\x7f")

    def cut(nbytes: int) -> None:
        os.truncate(file, 2**20)

    faults = content.check_content(file, entries, cut)
    assert [fault.kind for fault in faults] == ["not finite", "unreadable file"]
    assert (
        faults[-1].text
        == "model.safetensors: cannot be read to its end (it became shorter while it was read)"
    )


def test_reads_that_give_few_bytes_at_a_time_miss_nothing(
    folder: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:100_001])

    write(folder, "model.norm.weight", b"\x80\x7f", at=2)
    download_metadata(folder, WEIGHTS, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    monkeypatch.setattr(content, "open", lambda path, *_, **__: Slow(path), raising=False)
    code, _, err = verify()
    assert code == 2
    assert err.startswith("gpt-oss-mxfp4: FOLDER: model.norm.weight in model.safetensors must hold")
    assert "has 1, the first at [1]" in err


@pytest.mark.parametrize(
    ("tensors", "data"),
    [
        ([("a_scales", "I8", [2], [0, 2])], b"\xff\xff"),
        ([("a_blocks", "I8", [2], [0, 2])], b"\0\0"),
        ([("a", "U8", [2], [0, 2])], b"\0\xff"),
        ([("a_blocks", "U8", [], [0, 1])], b"\0"),
        ([("a_blocks", "U8", [0, 2], [0, 0])], b""),
        ([("a_blocks", "U8", [1], [0, 1]), ("empty", "U8", [0], [0, 0])], b"\x10"),
    ],
    ids=["scales' dtype", "codes' dtype", "name", "number", "no experts", "empty one named last"],
)
def test_tensors_that_no_gpt_oss_has_are_read_too(
    tmp_path: Path, tensors: list[tuple[str, str, list[int], list[int]]], data: bytes
) -> None:
    file = tmp_path / "x.safetensors"
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, dtype, shape, offsets in tensors
    }
    file.write_bytes(raw_file(json.dumps(header).encode(), data))
    counted: list[int] = []
    assert content.check_content(file, read_header(file), counted.append) == []
    assert sum(counted) == file.stat().st_size


def test_json_has_the_same_facts(folder: Path, verify: Verify) -> None:
    write(folder, "model.norm.weight", b"\x80\x7f")
    code, out, err = verify("--json")
    told = json.loads(out)
    assert code == 2
    assert err.count("\n") == 1
    [fault] = told.pop("faults")
    assert fault["kind"] == "not finite"
    assert fault["text"] in err
    size = (folder / WEIGHTS).stat().st_size
    assert told == {
        "path": "FOLDER",
        "sound": False,
        "files": 1,
        "bytes": size,
        "tensors": 79,
        "checksums": [],
    }


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def download_metadata(folder: Path, name: str, etag: str) -> None:
    path = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{'0' * 40}\n{etag}\n1712656091.123\n")


def test_checksums_of_a_folder_that_was_pulled_are_compared(folder: Path, verify: Verify) -> None:
    sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    download_metadata(folder, WEIGHTS, sha256)
    download_metadata(folder, "config.json", git_sha1((folder / "config.json").read_bytes()))
    code, out, _ = verify()
    assert (code, out) == (
        0,
        "FOLDER: sound, 79 tensors, 3.92 MB; 2 checksums of the Hub match\n",
    )
    # A code of another value: nothing but the checksum can tell.
    name = "model.layers.0.mlp.experts.gate_up_proj_blocks"
    write(folder, name, bytes([weights_byte(folder, name) ^ 1]))
    has = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert verify() == (
        2,
        "",
        f"gpt-oss-mxfp4: FOLDER: {WEIGHTS}: must have the SHA-256 that the Hub gave, {sha256}, has {has}."
        f" {CHANGED}.\n",
    )


def weights_byte(folder: Path, name: str) -> int:
    file, entries = weights(folder)
    return file.read_bytes()[entries[name].begin]


def test_checksums_of_the_download_cache_are_compared(folder: Path, verify: Verify) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for file in [f for f in folder.iterdir() if f.is_file()]:
        data = file.read_bytes()
        large = file.suffix == ".safetensors"
        blob = blobs / (hashlib.sha256(data).hexdigest() if large else git_sha1(data))
        file.rename(blob)
        file.symlink_to(blob)
    code, out, _ = verify()
    assert code == 0
    assert "checksums of the Hub match" in out
    config = (folder / "config.json").resolve()
    config.write_text(config.read_text() + "\n")
    code, _, err = verify()
    assert code == 2
    assert f"config.json: must have the git SHA-1 that the Hub gave, {config.name}, has" in err


@pytest.mark.parametrize(
    "text",
    ["", "one line", "a\nnot hexadecimal\n", f"a\n{'0' * 65}\n", "a\n\xff\n", "x\n" * 10**6],
)
def test_metadata_that_is_none_is_passed_over(folder: Path, verify: Verify, text: str) -> None:
    download_metadata(folder, WEIGHTS, "")
    path = folder / ".cache" / "huggingface" / "download" / f"{WEIGHTS}.metadata"
    path.write_text(text)
    assert verify()[0] == 0


def test_a_link_that_is_not_into_the_cache_says_nothing(folder: Path, verify: Verify) -> None:
    elsewhere = folder.parent / ("0" * 64)
    (folder / WEIGHTS).rename(elsewhere)
    (folder / WEIGHTS).symlink_to(elsewhere)
    assert verify()[0] == 0


def test_a_folder_that_is_not_there_is_refused(capfd: Capture) -> None:
    assert cli.main(["verify", "./absent"]) == 2
    assert capfd.readouterr() == (
        "",
        "gpt-oss-mxfp4: absent: must be a folder, is not. Check the path.\n",
    )
