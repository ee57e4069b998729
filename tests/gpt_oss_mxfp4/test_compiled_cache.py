"""What was compiled and kept: found again only if it is what was written, whoever else reads and writes the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import compiled_cache
from gpt_oss_mxfp4.compiled_cache import (
    ABANDONED_SECONDS,
    CACHE_VARIABLE,
    SUFFIX,
    UNFINISHED,
    CompiledCache,
    default_folder,
    entry_name,
)

CONTENT = b"\x7fELF\n\n\0" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "some" / "where")


def content(data: bytes = CONTENT) -> Callable[[Path], None]:
    """What exports the data."""

    def export(path: Path) -> None:
        path.write_bytes(data)

    return export


def path_of(cache: CompiledCache, name: str) -> Path:
    return cache.folder / f"{name}{SUFFIX}"


def test_what_was_written_is_read(cache: CompiledCache) -> None:
    assert cache.read("a") is None
    cache.write("a", content())
    cache.write("empty", content(b""))
    assert cache.read("a") == CONTENT
    assert cache.read("empty") == b""
    assert cache.read("b") is None
    assert len(list(cache.folder.iterdir())) == 2


def test_an_entry_is_replaced_whole(cache: CompiledCache) -> None:
    cache.write("a", content())
    cache.write("a", content(b"new"))
    assert cache.read("a") == b"new"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
    ],
    ids=[
        "cut",
        "cut in the digest",
        "empty",
        "longer",
        "a bit of the content",
        "a bit of the digest",
    ],
)
def test_a_damaged_entry_is_none_and_makes_room(
    cache: CompiledCache, damage: Callable[[bytes], bytes]
) -> None:
    cache.write("a", content())
    path = path_of(cache, "a")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read("a") is None
    assert not path.exists()
    cache.write("a", content())
    assert cache.read("a") == CONTENT


def test_an_export_that_fails_leaves_nothing(cache: CompiledCache) -> None:
    def export(path: Path) -> None:
        path.write_bytes(CONTENT[:10])
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        cache.write("a", export)
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = CompiledCache(tmp_path / "file" / "cache")
    assert cache.read("a") is None
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        cache.write("a", content())
    cache.remove("a")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write")
def test_a_folder_that_cannot_be_written_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"No such file|Permission"):
        CompiledCache(Path("/proc/self/task")).write("a", content())


def test_processes_that_write_one_entry_at_once_all_succeed(cache: CompiledCache) -> None:
    """They also read it meanwhile, and never see a part."""
    code = (
        "import sys; from pathlib import Path; from gpt_oss_mxfp4.compiled_cache import CompiledCache\n"
        "cache, data = CompiledCache(Path(sys.argv[1])), sys.argv[2].encode() * 500_000\n"
        "for _ in range(20):\n"
        "    cache.write('a', lambda path: path.write_bytes(data))\n"
        "    found = cache.read('a')\n"
        "    assert found and len(found) == 500_000 and len(set(found)) == 1"
    )
    command = [sys.executable, "-c", code, str(cache.folder)]
    writers = [subprocess.Popen([*command, letter], env=dict(os.environ)) for letter in "xyz"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert [path.name for path in cache.folder.iterdir()] == [f"a{SUFFIX}"]


def test_the_entries_used_last_are_kept(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "ENTRIES", 2)
    for age, name in ((300, "old"), (200, "older but used")):
        cache.write(name, content())
        os.utime(path_of(cache, name), (0, age))
    os.utime(path_of(cache, "older but used"), (0, 100))
    assert cache.read("older but used") == CONTENT
    cache.write("new", content())
    assert {path.stem for path in cache.folder.iterdir()} == {"new", "older but used"}


def test_what_a_killed_writer_left_is_removed_after_a_day(cache: CompiledCache) -> None:
    for name, age in (
        (f"{UNFINISHED}left", ABANDONED_SECONDS + 10),
        (f"{UNFINISHED}at work", 10),
        (".not ours", ABANDONED_SECONDS + 10),
    ):
        (cache.folder / name).mkdir(parents=True)
        (cache.folder / name / "exported").touch()
        then = os.stat(cache.folder / name).st_mtime - age
        os.utime(cache.folder / name, (then, then))
    cache.write("a", content())
    assert {path.name for path in cache.folder.iterdir()} == {
        f"{UNFINISHED}at work",
        ".not ours",
        f"a{SUFFIX}",
    }


def test_a_name_changes_with_everything_that_an_entry_was_made_from() -> None:
    made_from = ("config", 1), ("26.7.0", "1.2.0"), "avx512bf16"
    names = {
        entry_name("decoder", *made_from),
        entry_name("sampler", *made_from),
        entry_name("decoder", ("config", 2), *made_from[1:]),
        entry_name("decoder", made_from[0], ("26.7.1", "1.2.0"), made_from[2]),
        entry_name("decoder", *made_from[:2], "avx2"),
    }
    assert len(names) == 5
    assert entry_name("decoder", *made_from) in names
    assert all(name.startswith(("decoder-", "sampler-")) for name in names)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, Path("/home/someone/.cache/gpt-oss-mxfp4")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/gpt-oss-mxfp4")),
        ({"XDG_CACHE_HOME": ""}, Path("/home/someone/.cache/gpt-oss-mxfp4")),
        ({"XDG_CACHE_HOME": "relative"}, Path("/home/someone/.cache/gpt-oss-mxfp4")),
        ({"XDG_CACHE_HOME": "/xdg", CACHE_VARIABLE: "/mine"}, Path("/mine")),
        ({CACHE_VARIABLE: "~/mine"}, Path("/home/someone/mine")),
        ({CACHE_VARIABLE: "mine"}, Path("mine").absolute()),
        ({CACHE_VARIABLE: "~nobody at all/mine"}, Path("~nobody at all/mine").absolute()),
        ({"XDG_CACHE_HOME": "/xdg", CACHE_VARIABLE: ""}, None),
    ],
)
def test_the_environment_names_the_folder(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: Path | None
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    for name, value in {"HOME": "/home/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == folder
