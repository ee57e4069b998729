"""The Mojo ops: where their sources lie, what graphs are given of them, and a digest of what a graph is made from."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import mojo.run

from gpt_oss_mxfp4.compiled_cache import CompiledCache, default_folder, entry_name
from gpt_oss_mxfp4.toolchain import versions


def _locate_sources() -> Path:
    """Mojo sources: beside this package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    for root in (package, package.parent):
        if (path := root / "custom_ops" / "mxfp4").is_dir():
            return path
    raise FileNotFoundError(
        f"gpt_oss_mxfp4: custom_ops/mxfp4 must lie in or beside {package}; reinstall the package"
    )


SOURCES = _locate_sources()
"""Of the ops."""

PACKAGE = "mxfp4.mojoc"
"""File of precompiled ops; the compiler has put its name into it."""

OUTSIDE_GRAPHS = ("chat", "chat_page", "cli", "convert", "endpoint", "inspection", "serving")
"""Folders of this package that build no graphs."""

_failed: set[Path] = set()
"""Entries that this process cannot make, of which it need not try again."""


def custom_ops() -> Path:
    """Returns what graphs that use the ops pass as ``custom_extensions``: precompiled ops, or else their sources.

    MAX precompiles sources for each graph that names them, in 16 s on two cores (NOTES F89). So they are precompiled
    once, into the folder where compiled graphs are kept. Where nothing can be kept, or where they do not compile, of
    which MAX then tells, graphs are given the sources.
    """
    return _kept(_precompile)


def adopt_custom_ops(package: Path) -> None:
    """Keeps ops that were precompiled elsewhere, of the same sources by the same MAX, if they are there."""
    if package.is_file():
        _kept(lambda output: shutil.copyfile(package, output))


def _kept(make: Callable[[Path], object]) -> Path:
    folder = default_folder()
    if folder is None:
        return SOURCES
    cache, sources = CompiledCache(folder), _digest((SOURCES, "*.mojo"))
    name = entry_name("ops", sources, versions())
    found = cache.find_file(name, PACKAGE)
    if found is None and folder / name not in _failed:
        try:
            cache.write_file(name, PACKAGE, make)
            if _digest((SOURCES, "*.mojo")) != sources:  # edited meanwhile
                cache.remove(name)
        except (OSError, RuntimeError, subprocess.CalledProcessError):
            _failed.add(folder / name)
        found = cache.find_file(name, PACKAGE)  # whoever wrote it
    return found or SOURCES


def _precompile(output: Path) -> None:
    words = ["precompile", str(SOURCES), "-o", str(output)]
    mojo.run.subprocess_run_mojo(words, capture_output=True, check=True)


@functools.cache
def digest_sources() -> str:
    """Returns a digest of every source that a compiled graph depends on: the ops' and this package's."""
    return _digest((SOURCES, "*.mojo"), (Path(__file__).parent.parent, "*.py"))


def _digest(*sources: tuple[Path, str]) -> str:
    digest = hashlib.sha256()
    for folder, kind in sources:
        for file in sorted(folder.rglob(kind)):
            if file.relative_to(folder).parts[0] not in OUTSIDE_GRAPHS:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
