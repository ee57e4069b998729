"""PTX of the Hopper kernels' variants, compiled once."""

from __future__ import annotations

import pytest

from tests.custom_ops.mxfp4.ptx import SM90, emit


@pytest.fixture(scope="session")
def kernels() -> dict[str, str]:
    """PTX by the variant's name."""
    return emit(SM90)
