"""A real server in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

from gpt_oss_mxfp4.options import DEMO_MODEL

SECONDS_TO_START = 600
ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

MAX_SERVE = (
    *(str(Path(sys.executable).parent / "max"), "serve", "--model", str(DEMO_MODEL)),
    *("--custom-architectures", "gpt_oss_mxfp4", "--devices", "cpu"),
    *("--quantization-encoding", "float32", "--max-length", "1024", "--max-batch-size", "4"),
)
"""MAX's own command, with the demo model."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Args:
        url: without a path.
        model: what requests call it.
        process: of the API.
        log: file of what it prints.
    """

    url: str
    model: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def client(self) -> Any:
        """An OpenAI client of it."""
        return OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=SECONDS_TO_START
        )


@contextmanager
def running(command: Sequence[str], log: Path, model: str = str(DEMO_MODEL)) -> Iterator[Server]:
    """Runs a server while its context lasts.

    Args:
        command: that starts it, and takes --host and --port.
        log: file for what it prints.
        model: what it is to be called.
    """
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, metrics = probe.getsockname()[1], other.getsockname()[1]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT
            | {"MAX_SERVE_METRICS_ENDPOINT_PORT": str(metrics), "OTEL_SDK_DISABLED": "true"},
            start_new_session=True,
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", model, process, log)
        _wait_for(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: Server) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"no answer from the server\n{server.log.read_text()}")
