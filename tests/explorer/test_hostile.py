"""Hostile text in the browser: nothing runs, nothing leaves, the page stays usable.

What must not happen (a dialog, an error on the console, a breach of the policy, a request to
elsewhere) is checked by `watch` for every page that a test opens.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browsing import NARROW, WIDE, Served, Watched, wait_for, width_beyond
from made_up_study import HOSTILE, LONG
from playwright.sync_api import Page, expect

from safesail.explorer._text import visible

Watch = Callable[..., Watched]
FIRST = 60
NUMBER_OF_LONG = FIRST + len(HOSTILE)

# Elements that only hostile text could have brought.
_INTRUDERS = """() => [...document.querySelectorAll(
  "script:not([src^='/static/']):not([type='application/json']), img, iframe, object, embed, " +
  "base, link[href^='http'], [onerror], [onload], [onfocus], [onmouseover], [autofocus], " +
  "a[href^='javascript'], a[href^='http'], [style]:not(.hover)"
)].map((element) => element.outerHTML.slice(0, 200))"""


def assert_tame(page: Page) -> None:
    assert page.evaluate(_INTRUDERS) == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_lists_of_hostile_text(watch: Watch, hostile_server: Served, width: int) -> None:
    page = watch(width=width).page
    for path in ("/", "/features?sort=feature&sae=first", "/features?q=alert", "/sae/first"):
        page.goto(hostile_server.address + path)
        assert_tame(page)
        assert width_beyond(page) <= 0


def test_each_hostile_feature(watch: Watch, hostile_server: Served) -> None:
    page = watch().page
    for number, text in enumerate(HOSTILE, start=FIRST):
        page.goto(f"{hostile_server.address}/feature/first/{number}?contexts=all&q=%22%3E")
        assert_tame(page)
        # What was written is what is read, its controls made visible.
        assert page.locator(".explanation bdi").text_content() == visible(text)
        token = page.locator(".contexts mark").first
        assert token.text_content() == visible(text)
        token.click()
        expect(page.locator(".reading")).to_contain_text("activates it at 2")
        page.keyboard.press("Escape")
    assert page.evaluate("typeof alert") == "function"


def test_right_to_left_text_turns_nothing_around_it(watch: Watch, hostile_server: Served) -> None:
    page = watch().page
    number = FIRST + next(n for n, text in enumerate(HOSTILE) if "\u202e" in text)
    page.goto(f"{hostile_server.address}/feature/first/{number}")
    for place in (".explanation bdi", ".contexts bdi.text", ".token"):
        element = page.locator(place).first
        assert element.evaluate("(e) => getComputedStyle(e).unicodeBidi") == "isolate"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_text_without_spaces_and_end(watch: Watch, hostile_server: Served, width: int) -> None:
    page = watch(width=width).page
    page.goto(f"{hostile_server.address}/feature/first/{NUMBER_OF_LONG}")
    assert width_beyond(page) <= 0
    rest = page.locator(".explanation details bdi")
    expect(rest).to_be_hidden()
    page.get_by_text("Show all 1,000,000 characters").click()
    expect(rest).to_be_visible()
    assert width_beyond(page) <= 0
    assert len(page.locator(".explanation bdi").first.text_content() or "") == 600
    page.goto(f"{hostile_server.address}/features?features={NUMBER_OF_LONG}")
    assert width_beyond(page) <= 0


def test_the_landscape_of_hostile_text(watch: Watch, hostile_server: Served) -> None:
    page = watch().page
    page.goto(f"{hostile_server.address}/landscape?sae=first")
    canvas = page.locator("canvas[data-ready]")
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=3)
    page.mouse.up()
    expect(page.locator("section table.list tbody tr")).to_have_count(FIRST + len(HOSTILE) + 1)
    canvas.focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
    assert_tame(page)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_hostile_text_is_diagnosed(watch: Watch, hostile_server: Served, width: int) -> None:
    page = watch(width=width).page
    page.goto(hostile_server.address + "/diagnose")
    text = " ".join(HOSTILE) + " stolen savings " + LONG[:5_000]
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("A second text").fill("</textarea><script>alert(1)</script> savings")
    page.get_by_role("button", name="Diagnose").click()
    expect(page.locator(".result")).to_have_count(2)
    assert_tame(page)
    assert page.get_by_label("A second text").input_value().startswith("</textarea><script>")
    for token in page.locator(".tokens button").all()[::5]:
        token.click()
    assert_tame(page)
    assert width_beyond(page) <= 0


def test_a_hostile_correction_is_text(watch: Watch, hostile_server: Served) -> None:
    page = watch().page
    page.goto(hostile_server.address + "/feature/second/1")
    page.get_by_text("Correct this").click()
    hostile = "</textarea><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    page.get_by_label("Explanation (en)").fill(hostile)
    page.get_by_label("Your name").fill('<b onclick="alert(1)">')
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.locator(".explanation")).to_have_text(hostile)
    assert_tame(page)
    page.get_by_text("Correct this").click()
    expect(page.get_by_label("Explanation (en)")).to_have_value(hostile)


def test_the_policy_stops_what_gets_through(watch: Watch, server: Served) -> None:
    """Were something not escaped, the browser would still run and load none of it."""
    watched = watch()
    page = watched.page
    stopped: list[str | None] = []
    page.on("requestfailed", lambda request: stopped.append(request.failure))
    page.goto(server.address)
    page.evaluate("""() => {
      const place = document.querySelector("main");
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      place.append(script);
      place.insertAdjacentHTML("beforeend", "<img src='https://example.invalid/x.png'>");
      const trap = "<button id=trap onclick='window.ran = true'>x</button>";
      place.insertAdjacentHTML("beforeend", trap);
    }""")
    page.locator("#trap").click()
    assert page.evaluate("window.ran") is None
    # Each attempt is named on the console; the policy stopped the one request.
    wait_for(page, lambda: len(watched.faults) + len(stopped) >= 4)
    assert stopped == ["csp"]
    named = [fault for fault in watched.faults if fault.startswith("console: ")]
    assert len(named) == 3
    assert all("Content Security Policy" in fault for fault in named)
    watched.faults.clear()
