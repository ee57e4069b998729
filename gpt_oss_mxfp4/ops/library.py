"""Where the Mojo ops' sources lie."""

from __future__ import annotations

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
