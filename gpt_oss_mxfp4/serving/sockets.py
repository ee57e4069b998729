"""The port that is listened on: taken before the model is loaded, so that one in use is told at once."""

from __future__ import annotations

import errno
import os
import socket

from gpt_oss_mxfp4.options import Refused


def listen(host: str, port: int, argument: str = "--port") -> socket.socket:
    """Takes a port.

    Args:
        host: address or name to listen on.
        port: 0 for any that is free.
        argument: what asked for it.

    Returns:
        A socket that listens; connections wait until someone accepts them.

    Raises:
        Refused: it is in use, or cannot be had.
    """
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError) as error:  # no name of any host: a..b
        raise Refused(f"--host: {host} is not an address of this machine ({error})") from error
    try:
        return socket.create_server(address[4][:2], family=address[0], backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise Refused(f"--host: {host} is not an address of this machine") from error
        cure = "; name another port" if error.errno == errno.EADDRINUSE else ""
        raise Refused(
            f"{argument}: {host}:{port} cannot be listened on ({_reason(error)}){cure}"
        ) from error


def _reason(error: OSError) -> str:
    """Returns the system's words; Python adds the address to them, which is told already."""
    return os.strerror(error.errno) if error.errno else str(error)


def free_port(host: str, port: int | None, argument: str) -> int:
    """Finds a port that another process is to listen on.

    Args:
        host: address or name.
        port: that it must be, or None for any.
        argument: what asked for it.

    Raises:
        Refused: it is in use, or cannot be had.
    """
    with listen(host, port or 0, argument) as taken:
        return int(taken.getsockname()[1])


def url(host: str, port: int) -> str:
    """Returns what a browser on this machine opens."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
