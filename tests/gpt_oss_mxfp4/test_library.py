"""What graphs are given of the ops: precompiled once, whatever happens to the folder that keeps them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import mojo.run
import pytest

from gpt_oss_mxfp4.compiled_cache import CACHE_VARIABLE, ENTRIES, SUFFIX, CompiledCache
from gpt_oss_mxfp4.ops import custom_ops, library


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    monkeypatch.setattr(library, "_failed", set())
    return folder


@pytest.fixture
def precompiled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands a compiler in, and lists what it was to write."""
    outputs: list[Path] = []

    def run(words: list[str], **_: object) -> None:
        verb, sources, option, output = words
        assert (verb, sources, option) == ("precompile", str(library.SOURCES), "-o")
        outputs.append(Path(output))
        Path(output).write_bytes(b"ops")

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run)
    return outputs


def test_they_are_precompiled_once(cache: Path, precompiled: list[Path]) -> None:
    found = custom_ops()
    assert (found.name, found.parent.parent, found.read_bytes()) == ("mxfp4.mojoc", cache, b"ops")
    assert found.parent.stat().st_mode & 0o777 == 0o777 & ~_umask(), "as an entry that is a file"
    assert [custom_ops(), custom_ops()] == [found, found]
    assert len(precompiled) == 1
    assert [path.name for path in cache.iterdir()] == [found.parent.name], "nothing is left"


@pytest.mark.slow
def test_max_takes_them(cache: Path) -> None:
    from max.graph import KernelLibrary

    kernels = KernelLibrary()
    kernels.load_paths([custom_ops()])
    assert custom_ops().parent.parent == cache
    assert {"mxfp4.grouped_matmul", "moe.route", "attention.paged", "dense.matmul"} <= set(kernels)


@pytest.mark.parametrize("damage", ["cut", "digest", "package", "no text", "file"])
def test_what_is_damaged_is_made_again(cache: Path, precompiled: list[Path], damage: str) -> None:
    found = custom_ops()
    if damage == "cut":
        found.write_bytes(b"o")
    elif damage == "no text":
        (found.parent / "sha256").write_bytes(b"\xff")
    elif damage == "file":
        shutil.rmtree(found.parent)
        found.parent.touch()
    else:
        (found if damage == "package" else found.parent / "sha256").unlink()
    assert custom_ops() == found
    assert found.read_bytes() == b"ops"
    assert len(precompiled) == 2


def test_other_sources_are_other_ops(
    cache: Path, precompiled: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = custom_ops()
    sources = Path(shutil.copytree(library.SOURCES, tmp_path / "sources"))
    monkeypatch.setattr(library, "SOURCES", sources)
    assert custom_ops() == first, "wherever they lie"
    (sources / "format.mojo").write_text("# changed\n")
    assert custom_ops() != first


@pytest.mark.usefixtures("precompiled")
@pytest.mark.parametrize("place", ["", "/proc/none", "file"])
def test_graphs_get_sources_where_nothing_can_be_kept(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / place) if place == "file" else place)
    assert custom_ops() == library.SOURCES


def test_graphs_get_sources_that_do_not_compile_so_that_max_tells_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def run(words: list[str], **_: object) -> None:
        tried.append(words[0])
        raise subprocess.CalledProcessError(1, words)

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run)
    assert [custom_ops(), custom_ops()] == [library.SOURCES] * 2
    assert tried == ["precompile"], "once"
    assert list(cache.iterdir()) == []


def test_what_another_process_has_written_meanwhile_is_taken(
    cache: Path, precompiled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = custom_ops()
    theirs = Path(shutil.move(found.parent, cache.parent / "theirs"))
    run = mojo.run.subprocess_run_mojo

    def slow(words: list[str], **named: object) -> None:
        run(words, **named)
        shutil.copytree(theirs, found.parent)
        (found.parent / "open").touch()

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", slow)
    assert custom_ops() == found
    assert (found.parent / "open").exists(), "and stays as it is, for who uses it"


def test_those_that_compile_has_written_are_taken(
    cache: Path, precompiled: list[Path], tmp_path: Path
) -> None:
    package = tmp_path / "theirs"
    library.adopt_custom_ops(package)
    assert not cache.exists(), "there are none"
    package.write_bytes(b"theirs")
    library.adopt_custom_ops(package)
    assert custom_ops().read_bytes() == b"theirs"
    assert not precompiled


def test_sources_that_are_edited_meanwhile_are_not_taken_for_those_before(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Path(shutil.copytree(library.SOURCES, tmp_path / "sources"))
    monkeypatch.setattr(library, "SOURCES", sources)

    def run(words: list[str], **_: object) -> None:
        Path(words[-1]).write_bytes(b"ops")
        (sources / "format.mojo").write_text("# changed\n")

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run)
    assert custom_ops() == sources
    assert list(cache.iterdir()) == []


def test_those_that_nobody_uses_are_dropped_with_other_entries(
    cache: Path, precompiled: list[Path]
) -> None:
    found = custom_ops()
    kept = CompiledCache(cache)
    for number in range(ENTRIES + 1):
        kept.write(f"graph-{number}", lambda path: path.touch())
    assert not found.parent.exists()
    assert len(list(cache.glob(f"*{SUFFIX}"))) == ENTRIES
