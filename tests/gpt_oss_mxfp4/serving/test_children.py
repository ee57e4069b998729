"""Processes of MAX's that the server ties to itself, and a MAX that starts none by that name."""

from __future__ import annotations

import signal
import subprocess
import sys

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


@pytest.mark.parametrize("verbose", [False, True])
def test_a_process_that_fails_says_why_in_one_line(verbose: bool) -> None:
    code = (
        "from gpt_oss_mxfp4.serving.children import _run_tied\n"
        "def fail(text): raise ValueError(text)\n"
        f"_run_tied(fail, 'model', {verbose}, 'two\\nlines')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    line = "gpt-oss-mxfp4: model: ValueError: two lines\n"
    assert ended.stderr.endswith(line)
    assert ended.stderr.startswith("Traceback") == verbose
    assert verbose or ended.stderr == line


def test_another_max_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes would outlive a server that is killed, and hold the model."""
    monkeypatch.delattr(process_control, "run_subprocess")
    with pytest.raises(RuntimeError) as raised, tied_children(verbose=False):
        pass
    message = "max.serve: process_control must have run_subprocess, as in MAX 26.7.0"
    assert str(raised.value) == message
