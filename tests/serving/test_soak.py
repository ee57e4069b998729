"""A quarter of a minute of mixed load; ten minutes are `scripts/soak.py`'s own."""

from __future__ import annotations

import asyncio

import pytest

from scripts.soak import growth, soak
from tests.serving.server import KEY, shared_server

pytestmark = pytest.mark.slow

MOST_BYTES = 100_000_000
"""By which memory may grow so soon after the start; a leak of a request's logits or text would be more."""


def test_a_mixed_load_meets_no_faults_and_memory_stays() -> None:
    server = shared_server()
    load, memory = asyncio.run(soak(server.url, server.process.pid, 0.25, clients=8, key=KEY))
    assert not load.faults
    assert load.turns.total() > 8
    assert growth(memory) < MOST_BYTES
    assert "Traceback" not in server.log
    assert "status=5" not in server.log


def test_growth_is_what_the_last_third_has_more_than_the_second() -> None:
    assert growth([(s, 100 if s < 10 else 50) for s in range(31)]) == 0
    assert growth([(s, 10 * s) for s in range(1, 31)]) == 100
