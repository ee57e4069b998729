"""A page to chat on, for whoever runs the server: static files of one origin with the API, nothing from elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = "/"
"""Path of the page."""

FILES = "/chat/"
"""Path that the page's own files lie under."""

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By suffix; a file of another suffix is not served."""

HEADERS = {
    # Scripts of the page alone run, and none can make HTML of text: what a model says stays text.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Asked about each time and sent once: all files are of one version, the server's.
    "Cache-Control": "no-cache",
}


def add_chat_page(app: FastAPI) -> frozenset[str]:
    """Serves the page at ``/`` of an app, and its files under ``/chat/``.

    Args:
        app: has the API at ``/v1``.

    Returns:
        The paths. They hold no secret, and are to be served without an API key: the page itself asks for one.
    """
    paths = set()
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.suffix in CONTENT_TYPES:
            path = PAGE if file.name == "index.html" else f"{FILES}{file.name}"
            _add_file(app, path, file.read_bytes(), CONTENT_TYPES[file.suffix])
            paths.add(path)
    return frozenset(paths)


def _add_file(app: FastAPI, path: str, content: bytes, content_type: str) -> None:
    from starlette.responses import Response as Answer
    from starlette.routing import Route

    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    async def respond(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Answer(status_code=304, headers=headers)
        return Answer(content, headers={**headers, "Content-Type": content_type})

    app.router.routes.append(Route(path, respond, methods=["GET"]))  # which answers HEAD too
