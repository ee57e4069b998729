"""One browser and one server for the tests of the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gpt_oss_mxfp4.chat_page import add_chat_page
from tests.browser import CHROMIUM, DRIVER, Browser, start_browser
from tests.endpoint import Endpoint, serve


@pytest.fixture(scope="package")
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    add_chat_page(endpoint.app)
    with serve(endpoint):
        yield endpoint


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER and sys.platform == "linux"):
        pytest.skip("no chromium and chromedriver here: the chat page is not tested in a browser")
    with start_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
