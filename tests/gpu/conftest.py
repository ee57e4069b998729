"""The device."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def gpu() -> object:
    """MAX is imported only once a test is to run: elsewhere that is seconds for nothing."""
    from max.driver import Accelerator, accelerator_count

    assert accelerator_count(), "MXFP4_GPU_TESTS=1, but MAX finds no GPU on this machine"
    return Accelerator()
