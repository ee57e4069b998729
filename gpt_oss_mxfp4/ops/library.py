"""Where the Mojo ops' sources lie, and what they and this package are."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def _locate_custom_ops() -> Path:
    """Mojo sources: beside this package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    for root in (package, package.parent):
        if (path := root / "custom_ops" / "mxfp4").is_dir():
            return path
    raise FileNotFoundError(
        f"gpt_oss_mxfp4: custom_ops/mxfp4 must lie in or beside {package}; reinstall the package"
    )


CUSTOM_OPS = _locate_custom_ops()
"""What graphs that use these ops pass as ``custom_extensions``."""


OUTSIDE_GRAPHS = ("chat", "chat_page", "cli", "convert", "endpoint", "inspection", "serving")
"""Folders of this package that build no graphs."""


@functools.cache
def digest_sources() -> str:
    """Returns a digest of every source that a compiled graph depends on: the ops' and this package's."""
    digest = hashlib.sha256()
    for folder, kind in ((CUSTOM_OPS, "*.mojo"), (Path(__file__).parent.parent, "*.py")):
        for file in sorted(folder.rglob(kind)):
            if file.relative_to(folder).parts[0] not in OUTSIDE_GRAPHS:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
