"""The chat page, from the real server, asks the real model."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.browser import CHROMIUM, DRIVER, ENTER, start_browser
from tests.serving.server import KEY, MODEL, shared_server

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    not (CHROMIUM and DRIVER and sys.platform == "linux"), reason="no chromium and chromedriver"
)
def test_a_question_on_the_page_is_answered_by_the_model(tmp_path: Path) -> None:
    server = shared_server()
    with start_browser(tmp_path) as page:
        page.open(f"{server.url}/")
        page.wait(lambda: page.count("#message") == 1)
        page.click("#message")
        page.type("What is 4587 + 968?" + ENTER)
        page.wait(lambda: page.shown(".key input"))
        page.type(KEY + ENTER)
        page.wait(lambda: page.count(".answer[aria-busy=false]") == 1 and not page.count(".error"))
        page.wait_for_text(".answer:last-child .text", "5555")
        page.wait_for_text("#model", MODEL)
        page.click("summary")
        assert "Sum 05555." in page.text(".answer:last-child details")
        assert re.search(r"\d+ tokens", page.text(".answer:last-child"))
        page.messages()
        page.click("#message")
        page.type('Reverse the word "lantern".' + ENTER)
        page.wait(lambda: page.count(".answer[aria-busy=false]") == 2)
        assert page.text(".answer:last-child .text") == "nretnal"
        assert page.messages() == []


def test_the_page_wants_no_key_and_the_model_does() -> None:
    server = shared_server()
    assert httpx.get(f"{server.url}/").status_code == 200
    assert httpx.get(f"{server.url}/chat/page.js").status_code == 200
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    assert httpx.get(f"{server.url}/docs").status_code == 401
