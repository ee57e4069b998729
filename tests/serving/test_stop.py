"""How the server ends: by a signal, by the death of one of its processes, or before it began."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.server import (
    KEY,
    MODEL,
    Server,
    free_ports,
    is_alive,
    running_server,
    start,
    stop,
)

pytestmark = pytest.mark.slow

TOKENS = 400


def long_answer(server: Server) -> int:
    """Asks for a long answer, and returns how many of its tokens came."""
    answer = httpx.post(
        f"{server.url}/v1/completions",
        json={
            "model": MODEL,
            "prompt": "1 2 3",
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "temperature": 0,
        },
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=300,
    )
    return int(answer.json()["usage"]["completion_tokens"])


def wait_closed(server: Server) -> None:
    """Waits until the port admits nobody, while running requests go on."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{server.url}/health")
        except httpx.TransportError:
            return
        time.sleep(0.05)
    pytest.fail("the port is open still")


def wait_running(server: Server) -> None:
    deadline = time.monotonic() + 60
    while server.metrics().get("maxserve_num_requests_running", 0) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_ended(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "processes outlive their server"
        time.sleep(0.1)


def assert_quiet(server: Server) -> None:
    """Nothing but our own lines was printed."""
    for line in server.log.splitlines():
        assert line.startswith(
            ("time=", "loading MAX", "compiling ", "serving ", "stopping: ", "stopped", "gpt-oss-mxfp4: ")
        ), server.log  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_end_and_a_restart_on_the_port_is_clean(
    number: signal.Signals,
) -> None:
    """Ctrl-C goes to all processes of the terminal, the model's too; SIGTERM to the server alone."""
    port = free_ports()
    with running_server(port=port) as server, ThreadPoolExecutor() as pool:
        children = server.children()
        answer = pool.submit(long_answer, server)
        wait_running(server)
        if number is signal.SIGINT:
            os.killpg(server.process.pid, number)
        else:
            server.send(number)
        wait_closed(server)
        assert answer.result() == TOKENS
        assert server.wait() == 0
        wait_ended(children)
        assert server.left_behind() == []
        assert_quiet(server)
        assert "stopping: 1 running requests get 30 s; a second signal ends at once" in server.log
        assert server.log.endswith("stopped\n")
        again = start(port=port)
        try:
            while "compiling" not in again.log:
                assert again.process.poll() is None, again.log
                time.sleep(0.1)
            assert httpx.get(f"{again.url}/ready").json() == {"status": "loading"}
            again.send(signal.SIGTERM)  # while it loads
            assert again.wait() == 0
            assert again.left_behind() == []
            assert_quiet(again)
        finally:
            stop(again)


def test_requests_get_no_longer_than_the_drain_allows_and_a_second_signal_ends_at_once() -> None:
    with running_server("--drain-seconds", "1") as server, ThreadPoolExecutor() as pool:
        for _ in range(8):
            pool.submit(long_answer, server)
        wait_running(server)
        begin = time.monotonic()
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - begin < 30
        assert " ended=stopped " in server.log
        assert_quiet(server)
    with running_server() as server, ThreadPoolExecutor() as pool:
        children = server.children()
        for _ in range(8):
            pool.submit(long_answer, server)
        wait_running(server)
        server.send(signal.SIGTERM)
        while "stopping" not in server.log:
            assert server.process.poll() is None, server.log
            time.sleep(0.05)
        server.send(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        wait_ended(children)
        assert server.left_behind() == []
        assert "Traceback" not in server.log


def test_the_server_ends_with_the_models_process_and_the_processes_with_the_server() -> None:
    ends = "gpt-oss-mxfp4: the model's process ended {} (Killed): so does the server\n"
    with running_server() as server:
        os.kill(server.worker(), signal.SIGKILL)
        assert server.wait() == 1
        assert_quiet(server)
        assert ends.format("by itself") in server.log
    server = start()
    try:
        # The tracker of shared memory, the metrics' process, the model's.
        while len(server.children()) < 3:
            assert server.process.poll() is None, server.log
            time.sleep(0.1)
        os.kill(max(server.children()), signal.SIGKILL)
        assert server.wait() == 1
        assert_quiet(server)
        assert ends.format("while it was loaded") in server.log
    finally:
        stop(server)
    with running_server() as server:
        children = server.children()
        assert len(children) >= 2
        server.process.kill()
        wait_ended(children)


def refused(*arguments: str, port: int) -> str:
    server = start(*arguments, port=port)
    try:
        assert server.process.wait(60) == 2
    finally:
        stop(server)
    assert server.log.count("\n") == 1
    return server.log


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = (
            f"127.0.0.1:{port} cannot be listened on (Address already in use); name another port\n"
        )
        assert refused(port=port) == f"gpt-oss-mxfp4: --port: {in_use}"
        told = refused("--metrics-port", str(port), port=free_ports())
        assert told == f"gpt-oss-mxfp4: --metrics-port: {in_use}"


def test_a_host_that_is_none_is_told() -> None:
    assert "--host: nowhere.invalid is not an address of this machine" in refused(
        "--host", "nowhere.invalid", port=free_ports()
    )
    assert "--max-length: must be at most the model's" in refused(
        "--max-length", "99999999", port=free_ports()
    )
