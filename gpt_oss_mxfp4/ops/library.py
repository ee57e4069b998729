"""The Mojo ops: where their sources lie, what graphs are given of them, and a digest of what a graph is made from."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import mojo.run

from gpt_oss_mxfp4.compiled_cache import SUFFIX, UNFINISHED, default_folder, entry_name
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

_DIGEST = "sha256"
"""File beside it."""

PACKAGE_VARIABLE = "GPT_OSS_MXFP4_OPS"
"""Environment variable that names precompiled ops, for this process and those that it starts."""

OUTSIDE_GRAPHS = ("chat", "chat_page", "cli", "convert", "endpoint", "inspection", "serving")
"""Folders of this package that build no graphs."""


def custom_ops() -> Path:
    """Returns what graphs that use the ops pass as ``custom_extensions``: precompiled ops, or else their sources.

    MAX precompiles sources for each graph that names them, in 16 s on two cores (NOTES F89). So they are precompiled
    once, into the folder where compiled graphs are kept. Where nothing can be kept, or where they do not compile, of
    which MAX then tells, graphs are given the sources.
    """
    if given := os.environ.get(PACKAGE_VARIABLE):
        return Path(given)
    cache = default_folder()
    if cache is None:
        return SOURCES
    folder = cache / f"{entry_name('ops', _digest((SOURCES, '*.mojo')), versions())}{SUFFIX}"
    if not _is_whole(folder):
        with suppress(OSError, RuntimeError, subprocess.CalledProcessError):
            _precompile(folder)
    if not _is_whole(folder):  # whoever wrote it: another process may have been faster
        return SOURCES
    with suppress(OSError):  # another user's folder, say
        os.utime(folder)
    return folder / PACKAGE


def _is_whole(folder: Path) -> bool:
    try:
        content = (folder / PACKAGE).read_bytes()
        return (folder / _DIGEST).read_text() == hashlib.sha256(content).hexdigest()
    except OSError:
        return False


def _precompile(folder: Path) -> None:
    """Writes the folder, which gets its name when it is whole."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=UNFINISHED))
    try:
        output = temporary / PACKAGE
        words = ["precompile", str(SOURCES), "-o", str(output)]
        mojo.run.subprocess_run_mojo(words, capture_output=True, check=True)
        (temporary / _DIGEST).write_text(hashlib.sha256(output.read_bytes()).hexdigest())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
