"""PTX of the kernels for any GPU, compiled once."""

from __future__ import annotations

import pytest

from tests.custom_ops.mxfp4.ptx import GPU, emit


@pytest.fixture(scope="session")
def kernels() -> dict[str, str]:
    """PTX by the variant's name."""
    return emit(GPU)
