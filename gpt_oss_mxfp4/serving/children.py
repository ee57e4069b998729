"""Processes that MAX starts for the server: they end with it, and say in one line why they end by themselves."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import one_line

_STARTER = "run_subprocess"


@contextmanager
def tied_children(verbose: bool) -> Iterator[None]:
    """Has MAX start processes that end when this one does, whatever ended it.

    MAX ends them itself where it can; killed, it cannot, and they would hold the model's memory for ever. Its one
    function that starts a process is replaced by name.

    Args:
        verbose: whether a process that fails prints its traceback as well.

    Raises:
        RuntimeError: MAX has no function of that name.
    """
    from max.serve import process_control

    original = getattr(process_control, _STARTER, None)
    if original is None:
        raise RuntimeError(f"max.serve: process_control must have {_STARTER}, as in MAX 26.7.0")
    setattr(process_control, _STARTER, functools.partial(_start_tied, original, verbose))
    # A terminal's Ctrl-C goes to every process: only this one is to heed it. Children inherit the main thread's mask;
    # here another thread still takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        setattr(process_control, _STARTER, original)


async def _start_tied(
    original: Callable[..., Awaitable[None]],
    verbose: bool,
    func: Callable[..., object],
    name: str,
    *given: Any,
    **named: Any,
) -> None:
    await original(functools.partial(_run_tied, func, name, verbose), name, *given, **named)


def _run_tied(
    func: Callable[..., object], name: str, verbose: bool, *given: Any, **named: Any
) -> None:
    """Runs in the child."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    try:
        func(*given, **named)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        print(
            f"gpt-oss-mxfp4: {name}: {type(error).__name__}: {one_line(str(error))}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
