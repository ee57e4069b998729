"""The chat page in a real browser, as its users have it: keys, clicks, and what is to be seen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.browser import ENTER, ESCAPE, SHIFT, Browser
from tests.endpoint import Break, Endpoint, Hold, Step, called, said, thought


class Page:
    """The page, opened anew for each test."""

    def __init__(self, browser: Browser, endpoint: Endpoint) -> None:
        self.browser = browser
        self.endpoint = endpoint

    def ask(self, question: str) -> None:
        self.browser.click("#message")
        self.browser.type(question + ENTER)

    def wait_for_end(self, answers: int = 1) -> None:
        ended = ".answer[aria-busy=false]"
        self.browser.wait(lambda: self.browser.count(ended) == answers)

    @property
    def answer(self) -> str:
        return self.browser.text(".answer:last-child .text")

    @property
    def error(self) -> str:
        return self.browser.text(".answer:last-child .error")


@pytest.fixture
def page(browser: Browser, endpoint: Endpoint) -> Iterator[Page]:
    endpoint.say()
    browser.open(endpoint.url)
    browser.run("sessionStorage.clear()")
    browser.wait_for_text("#model", "in")
    browser.messages()
    yield Page(browser, endpoint)
    # Every test's pages: no script failed, and none was kept from what it wanted. Refused requests are logged too.
    said = [message for message in browser.messages() if "Failed to load resource" not in message]
    assert [message for message in said if "ERR_INCOMPLETE_CHUNKED" not in message] == []


def test_enter_sends_the_message_and_its_settings(page: Page) -> None:
    page.endpoint.say(said("Hello."))
    page.ask("Hi")
    page.wait_for_end()
    assert page.answer == "Hello."
    assert page.browser.text(".question") == "Hi"
    assert page.endpoint.bodies == [
        {
            "model": "stand/in",
            "messages": [{"role": "user", "content": "Hi"}],
            "reasoning_effort": "medium",
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_shift_enter_starts_a_line(page: Page) -> None:
    page.endpoint.say(said("Two."))
    page.ask(f"one{SHIFT}{ENTER}{SHIFT}two")
    page.wait_for_end()
    assert page.endpoint.bodies[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]


def test_an_empty_message_is_not_sent(page: Page) -> None:
    page.ask("  ")
    assert page.browser.count(".question") == 0
    assert page.browser.run("return document.getElementById('send').disabled")


def test_an_answer_is_shown_while_it_comes(page: Page) -> None:
    hold = Hold()
    page.endpoint.say(said("first "), hold, said("second"))
    page.ask("Hi")
    page.browser.wait_for_text(".answer .text", "first")
    assert page.browser.shown("#stop")
    assert not page.browser.shown(".answer footer")
    hold.release()
    page.wait_for_end()
    assert page.answer == "first second"
    assert page.browser.shown("#send")


def test_reasoning_is_folded_and_streams_when_opened(page: Page) -> None:
    hold, more = Hold(), Hold()
    page.endpoint.say(thought("Add the ones."), hold, thought(" Then the tens."), more, said("46"))
    page.ask("12 + 34?")
    page.browser.wait(lambda: page.browser.shown(".reasoning summary"))
    assert not page.browser.shown(".thoughts")
    page.browser.click(".reasoning summary")
    page.browser.wait_for_text(".thoughts", "Add the ones.")
    hold.release()
    page.browser.wait_for_text(".thoughts", "Add the ones. Then the tens.")
    assert page.answer == ""
    more.release()
    page.wait_for_end()
    assert page.answer == "46"
    assert re.fullmatch(r"Reasoning, \d+\.\d s", page.browser.text(".reasoning summary"))


@pytest.mark.parametrize("way", ["button", "escape"])
def test_stop_hangs_up_and_keeps_what_came(page: Page, way: str) -> None:
    page.endpoint.say(said("So far"), Hold())
    page.ask("Go on forever")
    page.browser.wait_for_text(".answer .text", "So far")
    if way == "button":
        page.browser.click("#stop")
    else:
        page.browser.type(ESCAPE)
    page.wait_for_end()
    assert page.endpoint.vanished.wait(60), "the server still sends"
    assert page.browser.text(".note") == "Stopped."
    page.endpoint.say(said("Yes."))
    page.ask("Still there?")
    page.wait_for_end(2)
    assert page.endpoint.bodies[0]["messages"] == [
        {"role": "user", "content": "Go on forever"},
        {"role": "assistant", "content": "So far"},
        {"role": "user", "content": "Still there?"},
    ]


def test_earlier_turns_are_sent_without_their_reasoning(page: Page) -> None:
    page.endpoint.say(thought("hm"), said("One."))
    page.ask("First?")
    page.wait_for_end()
    page.ask("Second?")
    page.wait_for_end(2)
    assert page.endpoint.bodies[1]["messages"] == [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Second?"},
    ]


def test_regenerate_replaces_the_last_answer(page: Page) -> None:
    page.endpoint.say(said("One."))
    page.ask("First?")
    page.wait_for_end()
    page.endpoint.say(said("Another."))
    page.browser.click(".answer footer button:last-of-type")
    page.browser.wait_for_text(".answer .text", "Another.")
    page.wait_for_end()
    assert page.endpoint.bodies[0]["messages"] == [{"role": "user", "content": "First?"}]
    assert page.browser.count(".answer") == 1


def test_a_new_chat_stops_and_forgets(page: Page) -> None:
    page.endpoint.say(said("So far"), Hold())
    page.ask("First?")
    page.browser.wait_for_text(".answer .text", "So far")
    page.browser.click("#new")
    assert page.endpoint.vanished.wait(60), "the server still sends"
    assert page.browser.shown("#welcome")
    page.endpoint.say(said("Yes."))
    page.ask("Second?")
    page.wait_for_end()
    assert page.endpoint.bodies[0]["messages"] == [{"role": "user", "content": "Second?"}]


def test_settings_are_sent(page: Page) -> None:
    page.endpoint.say(said("Aye."))
    page.browser.click("#effort label:last-child span")
    page.browser.click("#settings-toggle")
    page.browser.click("#instructions")
    page.browser.type("Talk like a sailor.")
    page.browser.click("#temperature")  # in its middle, where it is focused too
    page.ask("Hi")
    page.wait_for_end()
    body = page.endpoint.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Talk like a sailor."}
    assert (body["reasoning_effort"], body["temperature"]) == ("high", 1)
    page.browser.type(ESCAPE)
    assert not page.browser.shown("#settings")


def test_counts_are_those_of_the_server(page: Page) -> None:
    hold = Hold()
    page.endpoint.say(said("a"), hold, said("b"))
    page.ask("Hi")
    page.browser.wait_for_text(".answer .text", "a")
    hold.release()
    page.wait_for_end()
    counts = r"prompt 17 tokens, answer 42, \d+\.\d tokens/s"
    assert re.fullmatch(counts, page.browser.text(".counts"))


def test_a_cut_answer_is_said_to_be_cut(page: Page) -> None:
    page.endpoint.say(said("So"), finish="length")
    page.ask("Hi")
    page.wait_for_end()
    assert page.browser.text(".note") == "Cut off: the tokens are used up."


def test_a_call_of_a_tool_is_shown_and_not_sent_back(page: Page) -> None:
    page.endpoint.say(*called("calculator", '{"a": 1}'), finish="tool_calls")
    page.ask("Hi")
    page.wait_for_end()
    assert page.browser.text(".note") == (
        'The model called calculator with {"a": 1}, but this page offers no tools.'
    )
    page.ask("Again")
    page.wait_for_end(2)
    assert [message["role"] for message in page.endpoint.bodies[1]["messages"]] == ["user", "user"]


def test_a_refusal_is_shown_in_the_servers_words(page: Page) -> None:
    page.endpoint.refuse(400, "the prompt has 5000 tokens, more than 4096")
    page.ask("Hi")
    page.wait_for_end()
    assert page.error == "the prompt has 5000 tokens, more than 4096. (400)"
    page.endpoint.say(said("Yes."))
    page.browser.click(".answer footer button:last-of-type")
    page.browser.wait_for_text(".answer .text", "Yes.")
    assert page.error == ""


def test_a_refused_question_is_not_sent_again(page: Page) -> None:
    page.endpoint.refuse(400, "the prompt has 5000 tokens, more than 4096")
    page.ask("A long one")
    page.wait_for_end()
    page.endpoint.say(said("Yes."))
    page.ask("A short one")
    page.wait_for_end(2)
    assert page.endpoint.bodies[0]["messages"] == [{"role": "user", "content": "A short one"}]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Break(), "The connection broke off before the answer was complete."),
        ({"error": {"message": "out of memory"}}, "out of memory."),
    ],
)
def test_an_answer_that_breaks_off_stays_and_says_so(page: Page, step: Step, error: str) -> None:
    hold = Hold()
    page.endpoint.say(said("So far"), hold, step)
    page.ask("Hi")
    page.browser.wait_for_text(".answer .text", "So far")
    hold.release()
    page.wait_for_end()
    assert (page.answer, page.error) == ("So far", error)


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    page.browser.devtools("Network.enable")
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.browser.devtools("Network.emulateNetworkConditions", **offline)
    try:
        page.ask("Hi")
        page.wait_for_end()
    finally:
        online = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.browser.devtools("Network.emulateNetworkConditions", **online)
        page.browser.devtools("Network.disable")
    assert page.error == "The server cannot be reached. Is it still running?"


def test_an_api_key_is_asked_for_and_kept_in_the_tab_alone(page: Page) -> None:
    page.endpoint.say(said("Welcome."))
    page.endpoint.key = "secret"
    page.browser.open(page.endpoint.url)  # its name is a secret too
    page.browser.wait(lambda: page.browser.shown("#welcome"))
    assert page.browser.text("#model") == ""
    page.ask("Hi")
    page.browser.wait(lambda: page.browser.shown(".key input"))
    assert "API key" in page.error
    page.browser.type("wrong" + ENTER)  # the field has the focus
    page.browser.wait(lambda: page.browser.run("return sessionStorage.length") == 1)
    page.browser.wait(
        lambda: bool(page.browser.run("return document.querySelector('.key input')?.value === ''"))
    )
    page.browser.type("secret" + ENTER)
    page.browser.wait_for_text(".answer .text", "Welcome.")
    assert page.browser.run("return [localStorage.length, document.cookie]") == [0, ""]
    assert page.browser.text("#model") == "in"


HOSTILE = """\
<img src=x onerror="window.broken=1"><script>window.broken=2</script> **<b onclick=x>bold</b>**

- <svg onload="window.broken=3">
# <iframe srcdoc="<script>parent.broken=4</script>">
[link](javascript:window.broken=5) `<i>code</i>`

```html"><img src=x onerror=window.broken=6>
<img src=x onerror="window.broken=7">
```
"""


def test_what_a_model_says_stays_text(page: Page) -> None:
    page.endpoint.say(thought(HOSTILE), *[said(line + "\n") for line in HOSTILE.split("\n")])
    page.ask(HOSTILE.replace("\n", " "))
    page.wait_for_end()
    page.browser.click(".reasoning summary")
    assert page.browser.run("return window.broken ?? null") is None
    made = "img, script:not([src]), iframe, b, i, a, article svg:not([aria-hidden])"
    assert page.browser.count(made) == 0
    shown = page.browser.run("return document.querySelector('.answer .text').textContent")
    for tag in ("<img src=x onerror=", "<script>", "<svg onload=", "<iframe srcdoc=", "<i>code"):
        assert tag in shown
    assert "onclick=x" in page.browser.text(".text strong")


def test_html_cannot_be_made_of_text_at_all(page: Page) -> None:
    script = "try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; }"
    assert page.browser.run(script) == "TypeError"
    page.browser.messages()  # the refusal is one


MARKDOWN = """\
# Title
Some **bold** and `code`,
2 ** 3 ** 4.

1. one
   - nested
2. two
```python
if a < b:
    print("**no bold**")
```
after
"""


def test_markdown_becomes_elements_and_all_else_stays_as_written(page: Page) -> None:
    page.endpoint.say(*map(said, MARKDOWN))  # character by character: blocks change while they come
    page.ask("Hi")
    page.wait_for_end()
    text = page.browser.text
    assert text(".text h3") == "Title"
    assert text(".text p") == "Some bold and code,\n2 ** 3 ** 4."
    assert (text(".text p strong"), text(".text p code")) == ("bold", "code")
    items = "return [...document.querySelectorAll('.text li')].map((li) => li.textContent)"
    assert page.browser.run(items) == ["1.one", "•nested", "2.two"]
    assert text(".text .depth-1 span:last-child") == "nested"
    assert text(".code code") == 'if a < b:\n    print("**no bold**")'
    assert text(".text p:last-child") == "after"


def test_copying_gives_what_the_model_wrote(page: Page) -> None:
    page.endpoint.say(said("**bold**\n```\ncode\n```"))
    page.ask("Hi")
    page.wait_for_end()
    origin = {"origin": page.endpoint.url, "permissions": ["clipboardReadWrite"]}
    page.browser.devtools("Browser.grantPermissions", **origin)
    for button, copied in (
        (".answer footer button", "**bold**\n```\ncode\n```"),
        (".code button", "code"),
    ):
        page.browser.click(button)
        page.browser.wait_for_text(button, "Copied")
        assert page.browser.run("return navigator.clipboard.readText()") == copied


def test_a_long_answer_is_followed_until_the_reader_looks_up(page: Page) -> None:
    hold = Hold()
    page.endpoint.say(*[said(f"line {i}\n\n") for i in range(100)], hold, said("last"))
    page.ask("Hi")
    page.browser.wait_for_text(".answer .text", "line 99")
    main = "const main = document.querySelector('main'); return main.scrollHeight - main.scrollTop - main.clientHeight"
    page.browser.wait(lambda: page.browser.run(main) < 2)
    page.browser.run("document.querySelector('main').scrollTo(0, 0)")
    page.browser.wait(lambda: page.browser.run(main) > 500)
    hold.release()
    page.wait_for_end()
    assert page.browser.run("return document.querySelector('main').scrollTop") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_hold_the_contrast_that_text_needs(page: Page, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.devtools("Emulation.setEmulatedMedia", features=[feature])
    names = [
        "paper",
        "raised",
        "sunken",
        "chosen",
        "ink",
        "soft",
        "accent",
        "on-accent",
        "danger",
        "danger-paper",
    ]
    read = "const style = getComputedStyle(document.documentElement);"
    read += "return arguments[0].map((name) => style.getPropertyValue(`--${name}`).trim())"
    colour = dict(zip(names, page.browser.run(read, names), strict=True))
    page.browser.devtools("Emulation.setEmulatedMedia", features=[])
    pairs = [(ink, paper) for ink in ("ink", "soft") for paper in ("paper", "raised", "sunken")]
    pairs += [("ink", "chosen"), ("on-accent", "accent"), ("danger", "danger-paper")]
    pairs += [("ink", "danger-paper")]
    for ink, paper in pairs:
        assert contrast(colour[ink], colour[paper]) >= 4.5, (ink, paper)


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, #rgb or #rrggbb, by WCAG 2.2's definition."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        pairs = (
            [digits[i : i + 2] for i in (0, 2, 4)] if len(digits) == 6 else [d * 2 for d in digits]
        )
        parts = [int(pair, 16) / 255 for pair in pairs]
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_control_has_a_name(page: Page) -> None:
    page.endpoint.say(thought("hm"), said("```\ncode\n```"))
    page.browser.click("#settings-toggle")
    page.ask("Hi")
    page.wait_for_end()
    page.browser.devtools("Accessibility.enable")
    nodes = page.browser.devtools("Accessibility.getFullAXTree")["nodes"]
    page.browser.devtools("Accessibility.disable")
    roles = ("button", "textbox", "radio", "slider", "DisclosureTriangle")
    controls = [n for n in nodes if n["role"]["value"] in roles and not n["ignored"]]
    names = [node["name"]["value"] for node in controls]
    assert "" not in names
    wanted = {
        "Message",
        "Send",
        "New chat",
        "Settings",
        "Instructions",
        "Low",
        "Copy",
        "Regenerate",
    }
    assert wanted <= set(names)
    said_aloud = page.browser.run("return document.getElementById('status').textContent")
    assert said_aloud == "```\ncode\n```"


def test_a_narrow_screen_scrolls_in_one_direction(page: Page) -> None:
    page.browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=320,
        height=640,
        deviceScaleFactor=1,
        mobile=True,
    )
    page.endpoint.say(said("x" * 500 + "\n```\n" + "y" * 500 + "\n```"))
    page.ask("z" * 500)
    page.wait_for_end()
    width = page.browser.run(
        "return Math.max(document.documentElement.scrollWidth, document.querySelector('main').scrollWidth)"
    )
    page.browser.devtools("Emulation.clearDeviceMetricsOverride")
    assert width <= 320
