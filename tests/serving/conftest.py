"""Servers that tests share: a scripted one in this process, and the real one with the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.real import Server
    from tests.serving.scripted import ScriptedServer


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedServer]:
    """A server whose model says what a test has written."""
    from tests.serving.scripted import ScriptedServer

    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MAX's own server with the demo model, in a process of its own."""
    from tests.serving.real import MAX_SERVE, running

    with running(MAX_SERVE, tmp_path_factory.mktemp("serve") / "log") as server:
        yield server
