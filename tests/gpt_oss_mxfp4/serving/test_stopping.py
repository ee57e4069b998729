"""What the first signal does and what the second, and which are left alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from gpt_oss_mxfp4.serving import stopping
from gpt_oss_mxfp4.serving.stopping import SIGNALS, on_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """None is ignored, whoever started the tests; signals do afterwards what they did before."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def get(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_stops_and_the_second_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, first: signal.Signals
) -> None:
    stops: list[str] = []
    codes: list[int] = []
    monkeypatch.setattr(stopping, "_end_at_once", codes.append)

    async def serve() -> None:
        on_signals(lambda: stops.append("stop"))
        await get(first)
        assert (stops, codes) == (["stop"], [])
        await get(signal.SIGTERM)
        assert codes == [128 + signal.SIGTERM]

    asyncio.run(serve())


def test_a_signal_that_whoever_started_us_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stops: list[str] = []

    async def serve() -> None:
        on_signals(lambda: stops.append("stop"))
        await get(signal.SIGINT)
        assert stops == []
        await get(signal.SIGTERM)
        assert stops == ["stop"]

    asyncio.run(serve())
