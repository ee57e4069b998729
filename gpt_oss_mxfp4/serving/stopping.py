"""What signals do to the server: the first lets requests end, the second ends at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Callable

from gpt_oss_mxfp4.process import end_at_once

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def on_signals(stop: Callable[[], None]) -> None:
    """Has the running loop call ``stop`` at the first signal, and end the process and its children at the second.

    Args:
        stop: begins to end the server.
    """
    loop = asyncio.get_running_loop()
    seen = False

    def act(number: int) -> None:
        nonlocal seen
        if seen:
            _end_at_once(128 + number)
        seen = True
        stop()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a script's background job
            loop.add_signal_handler(number, act, number)


def _end_at_once(code: int) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    end_at_once(code)
