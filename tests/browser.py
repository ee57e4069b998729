"""A headless Chromium, driven through chromedriver's WebDriver protocol: a page as its users have it."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE_SECONDS = 60

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--window-size=1100,800",
)

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key of an element's id, by the WebDriver standard."""

ENTER, ESCAPE, SHIFT, TAB = "\ue007", "\ue00c", "\ue008", "\ue004"


@dataclass(frozen=True)
class Browser:
    """One window."""

    http: httpx.Client

    def command(self, method: str, path: str, **body: Any) -> Any:
        response = self.http.request(method, path, json=body if method == "POST" else None)
        value = response.json()["value"]
        if response.status_code != 200:
            raise AssertionError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self.command("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs the body of a function in the page, and gives what it returns."""
        return self.command("POST", "/execute/sync", script=script, args=list(arguments))

    def devtools(self, method: str, **parameters: Any) -> Any:
        return self.command("POST", "/goog/cdp/execute", cmd=method, params=parameters)

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element; fails where it is hidden, or behind another."""
        self.command("POST", f"/element/{self._find(selector)}/click")

    def type(self, keys: str) -> None:
        """Types into whatever has the focus; what is behind SHIFT is typed with it held, up to the next SHIFT."""
        actions = []
        held = False
        for key in keys:
            if key == SHIFT:
                actions.append({"type": "keyUp" if held else "keyDown", "value": key})
                held = not held
            else:
                actions += [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.command("POST", "/actions", actions=[source])

    def text(self, selector: str) -> str:
        """Gives the text of an element as it is shown, or nothing where it is not there."""
        return str(
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        )

    def count(self, selector: str) -> int:
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def shown(self, selector: str) -> bool:
        script = "return document.querySelector(arguments[0])?.checkVisibility() ?? false"
        return bool(self.run(script, selector))

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"did not come true; the page: {self.text('body')!r}")
            time.sleep(0.02)

    def wait_for_text(self, selector: str, text: str) -> None:
        self.wait(lambda: text in self.text(selector))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.command("GET", "/screenshot")))

    def messages(self) -> list[str]:
        """What the page has said to its console since the last time, faults of scripts and of the CSP among it."""
        return [entry["message"] for entry in self.command("POST", "/se/log", type="browser")]

    def _find(self, selector: str) -> str:
        found = self.command("POST", "/element", using="css selector", value=selector)
        return str(found[ELEMENT])


@contextlib.contextmanager
def start_browser(profile: Path) -> Iterator[Browser]:
    """Starts a browser with a new profile, and ends it."""
    assert DRIVER
    assert CHROMIUM
    driver = subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    options = {"binary": CHROMIUM, "args": [*SWITCHES, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    try:
        with httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False) as http:
            address = f"http://127.0.0.1:{_port_of(driver)}"
            made = http.post(
                f"{address}/session", json={"capabilities": {"alwaysMatch": wanted}}
            ).json()["value"]
            if "sessionId" not in made:  # a container without what it needs, say
                pytest.skip(f"chromium does not start here: {made.get('message', made)}")
            session = f"{address}/session/{made['sessionId']}"
            http.base_url = httpx.URL(session)
            try:
                yield Browser(http)
            finally:
                http.delete(
                    session
                ).raise_for_status()  # ends the browser, which the driver's end does not
    finally:
        driver.terminate()
        driver.wait()  # not for the end of what it says: a helper of the browser may hold that open
        if driver.stdout:
            driver.stdout.close()


def _port_of(driver: subprocess.Popen[str]) -> str:
    """Waits for the driver, which says where it listens."""
    assert driver.stdout
    said = ""
    for line in driver.stdout:
        said += line
        if match := re.search(r"started successfully on port (\d+)", line):
            return match[1]
    raise AssertionError(f"chromedriver did not start: {said}")
