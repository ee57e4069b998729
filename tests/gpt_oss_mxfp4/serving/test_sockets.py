"""Ports: taken, found, refused."""

from __future__ import annotations

import socket

import pytest

from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.serving.sockets import free_port, listen, url


def test_a_port_that_is_listened_on_is_refused_to_others_and_free_at_once_after() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        in_use = r"cannot be listened on \(Address already in use\); name another port$"
        message = f"^--port: 127.0.0.1:{port} {in_use}"
        with pytest.raises(Refused, match=message):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass
    assert free_port("127.0.0.1", port, "--metrics-port") == port


def test_a_host_that_is_no_address_is_refused() -> None:
    for host in ("nowhere.invalid", "a..b", "a" * 64):
        with pytest.raises(Refused, match=f"^--host: {host} is not an address of this machine"):
            listen(host, 0)
    with pytest.raises(Refused, match=r"^--host: 192.0.2.1 is not an address of this machine$"):
        listen("192.0.2.1", 8000)  # reserved for documents


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_the_address_shown_can_be_opened_here(host: str, shown: str) -> None:
    assert url(host, 80) == shown
