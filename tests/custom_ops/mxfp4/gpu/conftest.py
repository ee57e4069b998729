"""PTX of the kernels for any GPU, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.custom_ops.mxfp4.ptx import emit


@pytest.fixture(scope="session")
def kernels() -> dict[str, str]:
    """PTX by the variant's name."""
    return emit(Path(__file__).parent / "emit.mojo")
