"""Processes of MAX's that the server ties to itself, and a MAX that starts none by that name."""

from __future__ import annotations

import signal

import pytest
from max.serve import process_control

from gpt_oss_mxfp4.serving.children import tied_children


def test_what_starts_processes_is_replaced_for_as_long_as_the_server_runs() -> None:
    original = process_control.run_subprocess
    with tied_children(verbose=False):
        assert process_control.run_subprocess is not original
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert process_control.run_subprocess is original
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_another_max_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes would outlive a server that is killed, and hold the model."""
    monkeypatch.delattr(process_control, "run_subprocess")
    with pytest.raises(RuntimeError) as raised, tied_children(verbose=False):
        pass
    message = "max.serve: process_control must have run_subprocess, as in MAX 26.7.0"
    assert str(raised.value) == message
