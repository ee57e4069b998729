"""The load ends where there is no server to load."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import httpx
import pytest

from scripts import soak
from scripts.soak_load import Load


def test_a_server_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = tmp_path / "python"
    server.write_text("#!/bin/sh\nseq 20 >&2\nexit 3\n")
    server.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(server))
    assert soak.main(["--minutes", "0.01"]) == 1
    last = "\n".join(map(str, range(11, 21)))
    assert capsys.readouterr().out == f"the server did not start:\n{last}\n"


@pytest.mark.parametrize("seed", [0, 1, 9])  # a wrong request, a stream, and wrong bytes come first
def test_a_client_of_a_server_that_has_ended_ends_too(seed: int) -> None:
    async def take_turns() -> Load:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as client:
            load = Load(client)
            await load.take_turns(seed, until=time.monotonic() + 60)
            return load

    load = asyncio.run(asyncio.wait_for(take_turns(), 30))
    assert len(load.faults) == 1
    assert "Connect" in load.faults[0]
