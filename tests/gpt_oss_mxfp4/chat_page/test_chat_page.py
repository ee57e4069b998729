"""How the chat page is served: its types, its headers, and that it needs nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import gpt_oss_mxfp4.chat_page
from gpt_oss_mxfp4.chat_page import add_chat_page
from tests.endpoint import Endpoint

FOLDER = Path(gpt_oss_mxfp4.chat_page.__file__).parent
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in (".css", ".js", ".svg"))


def get(endpoint: Endpoint, path: str, **headers: str) -> httpx.Response:
    return httpx.get(endpoint.url + path, headers=headers, trust_env=False)


def test_the_page_is_html_that_runs_scripts_of_its_own_alone(endpoint: Endpoint) -> None:
    response = get(endpoint, "/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(
        policy
    )
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_its_type(endpoint: Endpoint, name: str) -> None:
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    response = get(endpoint, f"/chat/{name}")
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"].split(";")[0] == types[Path(name).suffix]


def test_what_the_browser_has_is_not_sent_again(endpoint: Endpoint) -> None:
    first = get(endpoint, "/")
    assert first.headers["cache-control"] == "no-cache"
    again = get(endpoint, "/", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/chat/", "/chat/__init__.py", "/chat/index.html", "/chat/%2e%2e/options.py"]
)
def test_nothing_else_is_served(endpoint: Endpoint, path: str) -> None:
    assert get(endpoint, path).status_code == 404


def test_the_paths_are_told_to_whoever_guards_the_others() -> None:
    paths = add_chat_page(FastAPI())
    assert paths == {"/", *(f"/chat/{name}" for name in FILES)}


@pytest.mark.parametrize("name", ["index.html", *FILES])
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    addresses = set(re.findall(r"\w+://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert (
        re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|style=\"|\bon\w+=\"",
            text,
        )
        == []
    )
