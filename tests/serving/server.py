"""A real server of the demo model in a process of its own, and clients for it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import OpenAI

from gpt_oss_mxfp4.serving.options import DEMO_NAME

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

KEY = "a-key-for-tests"
START_SECONDS = 600
"""Compiling included, on a busy machine."""

BATCH = 4


@dataclass
class Server:
    """A running server.

    Args:
        process: the one that was started; its children are MAX's.
        port: that it listens on.
        file: what it writes to standard error.
        temporary: where it keeps temporary files.
    """

    process: subprocess.Popen[bytes]
    port: int
    file: Path
    temporary: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.file.read_text()

    @functools.cached_property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=300)

    def metrics(self) -> dict[str, float]:
        """MAX's metrics by name and labels."""
        text = httpx.get(f"http://127.0.0.1:{self.port + 1}/metrics").text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def left_behind(self) -> list[str]:
        """Temporary files, but the caches of MAX's compiler and of torch."""
        names = [path.name for path in self.temporary.iterdir()]
        return [name for name in names if not name.startswith((".modular", "torchinductor"))]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(60)

    def children(self) -> list[int]:
        """Process ids of those that it started itself."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in task.read_text().split()]

    def worker(self) -> int:
        """The child that holds the model: the largest."""
        return max(self.children(), key=resident_bytes)


def resident_bytes(process: int) -> int:
    """Memory of a process; 0 where it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def free_ports() -> int:
    """A port that is free with the next, where the metrics go."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            with socket.socket() as next_one:
                next_one.bind(("127.0.0.1", port + 1))
                return port


def start(*arguments: str, port: int | None = None, key: str = KEY) -> Server:
    """Starts a server; it is not ready yet."""
    port = port or free_ports()
    handle, name = tempfile.mkstemp(prefix="gpt-oss-mxfp4-serve-", suffix=".log")
    atexit.register(Path(name).unlink, missing_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="serve-"))  # short: sockets go there
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gpt_oss_mxfp4", "serve", "--port", str(port)),
            *("--max-length", "1024", "--max-batch-size", str(BATCH), *arguments),
        ],
        stdout=handle,
        stderr=handle,
        env=ENVIRONMENT | {"GPT_OSS_MXFP4_API_KEY": key, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    os.close(handle)
    return Server(process, port, Path(name), temporary)


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/ready").status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server does not get ready\n{server.log}")


@contextlib.contextmanager
def running_server(*arguments: str, port: int | None = None, key: str = KEY) -> Iterator[Server]:
    """Gives a server that is ready, and ends it."""
    server = start(*arguments, port=port, key=key)
    try:
        wait_ready(server)
        yield server
    finally:
        stop(server)


def stop(server: Server) -> None:
    """Ends a server that may have ended."""
    server.process.terminate()
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


@functools.cache
def shared_server() -> Server:
    """One server for all tests that leave it as it was; its drain and bodies are small."""
    server = start("--ui", "--max-body-bytes", str(2**20))
    atexit.register(stop, server)
    wait_ready(server)
    return server


MODEL = DEMO_NAME
