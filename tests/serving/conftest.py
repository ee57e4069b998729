"""Servers that tests share: a scripted one in this process, and the real one with the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.scripted import ScriptedServer


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedServer]:
    """A server whose model says what a test has written."""
    from tests.serving.scripted import ScriptedServer

    server = ScriptedServer()
    yield server
    server.close()
