"""A stand-in for the Hub on this machine, with ranges, checksums of large files, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = "/api/models/test/tiny"
_PIECE_BYTES = 2**14


class StandIn(ThreadingHTTPServer):
    """One repository, test/tiny, served by the paths that huggingface_hub asks for.

    Attributes:
        commit: the one that its branches point to.
        earlier: files of the commits before that one.
        files: content by name; large ones (``*.safetensors``) have their SHA-256 for an etag, as LFS has it.
        requested: every path asked for.
        on_request: gets every path before it is answered.
        served: bytes sent of each file.
        ranges: whether a Range is answered with one.
        gated: whether files are refused.
        cut_after: bytes of weights after which a connection is closed, once.
        hang_after: bytes of weights after which no more are sent.
        busy: how many requests for weights are answered with 503 first.
        swapped: bytes that are sent in place of a file's own, the etag staying what it was.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commit = COMMIT
        self.earlier: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.requested: list[str] = []
        self.on_request: Callable[[str], object] = lambda path: None
        self.served: Counter[str] = Counter()
        self.ranges = True
        self.gated = False
        self.cut_after: int | None = None
        self.hang_after: int | None = None
        self.busy = 0
        self.swapped: dict[str, bytes] = {}
        self.released = threading.Event()

    def release(self, files: dict[str, bytes]) -> None:
        """Makes another commit, to which the branches point from now on."""
        self.earlier[self.commit] = self.files
        self.commit = hashlib.sha1(self.commit.encode()).hexdigest()
        self.files = files

    @property
    def resolve(self) -> str:
        """How the paths of files begin."""
        return f"/test/tiny/resolve/{self.commit}/"

    @property
    def revisions(self) -> set[str]:
        """The paths of what the repository has."""
        known = {"main", "v2", self.commit, *self.earlier}
        return {f"{_API}/revision/{revision}" for revision in known}

    @property
    def downloads(self) -> set[str]:
        """The repository's files that were asked for by HEAD or GET."""
        begin = self.resolve
        return {path.removeprefix(begin) for path in self.requested if path.startswith(begin)}

    def environment(self, cache: Path, *, offline: bool = False) -> dict[str, str]:
        """Variables of a process that takes this for the Hub."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        return {
            **kept,
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
            "NO_PROXY": "127.0.0.1",
        }


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requested.append(path)
        self.server.on_request(path)
        commits = {**self.server.earlier, self.server.commit: self.server.files}
        asked = re.fullmatch(r"/test/tiny/resolve/(\w+)/(.+)", path)
        commit, name = asked.groups() if asked else ("", "")
        if path in self.server.revisions:
            last = path.rpartition("/")[2]
            commit = last if last in commits else self.server.commit
            self.answer(
                200, json.dumps({"id": "test/tiny", "sha": commit, "siblings": []}).encode()
            )
        elif (tree := path.removeprefix(f"{_API}/tree/")) in commits:
            entries = [tree_entry(name, content) for name, content in commits[tree].items()]
            self.answer(200, json.dumps(entries).encode())
        elif commit in commits and self.server.gated:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif self.server.busy and self.command == "GET" and path.endswith(".safetensors"):
            self.server.busy -= 1
            self.answer(503, b"")
        elif name in commits.get(commit, {}):
            self.send_file(name, commit, commits[commit][name])
        elif path.startswith(f"{_API}/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, name: str, commit: str, content: bytes) -> None:
        """Answers with a file or the range of it that was asked for."""
        headers = {"ETag": f'"{etag(name, content)}"', "X-Repo-Commit": commit}
        content = self.server.swapped.get(name, content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not self.server.ranges:
            self.answer(200, content, headers, name)
            return
        begin, end = int(asked[1]), int(asked[2] or len(content) - 1) + 1
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self.answer(206, content[begin:end], headers, name)

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, name: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.send_body(body, name)

    def send_body(self, body: bytes, name: str) -> None:
        """Sends a body in pieces, as far as it is to get."""
        server, weights = self.server, name.endswith(".safetensors")
        for begin in range(0, len(body), _PIECE_BYTES):
            sent = server.served[name]
            if weights and server.cut_after is not None and sent >= server.cut_after:
                server.cut_after = None
                self.close_connection = True
                return
            if weights and server.hang_after is not None and sent >= server.hang_after:
                server.released.wait(60)
                self.close_connection = True
                return
            piece = body[begin : begin + _PIECE_BYTES]
            try:
                self.wfile.write(piece)
            except OSError:  # who asked has what it wants
                self.close_connection = True
                return
            server.served[name] += len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


def etag(name: str, content: bytes) -> str:
    """SHA-256 of a large file, git's SHA-1 of a small one."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree_entry(name: str, content: bytes) -> dict[str, object]:
    """A file as the Hub lists it."""
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content)}
    entry["oid"] = "0" * 40 if name.endswith(".safetensors") else etag(name, content)
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": etag(name, content), "size": len(content), "pointerSize": 134}
    return entry


@contextmanager
def serve() -> Iterator[StandIn]:
    """Runs a stand-in."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
