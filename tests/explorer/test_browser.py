"""The pages in Chromium, by mouse, finger and keys, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from browsing import NARROW, WIDE, Served, Watched, wait_for, width_beyond
from made_up_study import BEST_FRAUD
from playwright.sync_api import Page, expect

from safesail.explorer import read_corrections

Watch = Callable[..., Watched]
WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])
BEST = f"/feature/first/{BEST_FRAUD}"


def scripts_ran(page: Page) -> None:
    """Wait until a page that is already seen answers keys and clicks, too."""
    page.wait_for_load_state()


def visit(watch: Watch, server: Served, path: str, **options: object) -> Page:
    page = watch(**options).page
    page.goto(server.address + path)
    return page


PATHS = (
    "/",
    "/features",
    BEST,
    f"{BEST}?contexts=all",
    "/concept?name=fraud",
    "/sae/first",
    "/landscape",
    "/diagnose",
)


@WIDTHS
def test_no_page_is_wider_than_the_window(watch: Watch, server: Served, width: int) -> None:
    page = watch(width=width).page
    for path in PATHS:
        page.goto(server.address + path)
        assert width_beyond(page) <= 0, path
        expect(page.locator("h1")).to_have_count(1)
        for landmark in ("header.top", "main", "footer", "nav[aria-label=Pages]"):
            expect(page.locator(landmark)).to_have_count(1)


def test_the_best_fraud_feature_is_two_clicks_away(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/")
    page.get_by_role("link", name="fraud", exact=True).click()
    page.locator("table.list tbody th a").first.click()
    expect(page).to_have_url(re.compile(f"{BEST}\\?concept=fraud"))
    expect(page.locator(".contexts mark").first).to_be_visible()


def test_the_best_fraud_feature_is_one_click_away(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/")
    page.locator(".card", has_text="fraud").get_by_role("link", name="Best: feature").click()
    expect(page).to_have_url(f"{server.address}{BEST}")


@WIDTHS
def test_one_search_leads_to_a_context(watch: Watch, server: Served, width: int) -> None:
    page = visit(watch, server, "/", width=width)
    page.keyboard.press("/")
    page.keyboard.type(f"ledger{BEST_FRAUD}")
    page.keyboard.press("Enter")
    expect(page.locator("main .total")).to_contain_text("1 feature with")
    expect(page.locator(".snippet mark").first).to_have_text(f"ledger{BEST_FRAUD}")
    scripts_ran(page)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"Feature {BEST_FRAUD}")


@WIDTHS
def test_filter_sort_and_page(watch: Watch, server: Served, width: int) -> None:
    page = visit(watch, server, "/features", width=width)
    expect(page.locator(".total")).to_have_text("66 features")
    page.get_by_role("link", name="Next →").click()
    expect(page.locator(".paging")).to_contain_text("Page 2 of 2")
    scripts_ran(page)
    page.locator("select[name=sae]").select_option("second")
    expect(page.locator(".total")).to_have_text("6 features")
    page.get_by_label("at least").fill("0.6")
    page.get_by_label("at least").press("Enter")
    expect(page.locator(".total")).not_to_have_text("6 features")
    page.goto(server.address + "/features?sae=second")
    page.get_by_role("link", name="Feature", exact=True).click()
    expect(page.locator("th[aria-sort]")).to_contain_text("Feature")
    first = page.locator("table.list tbody tr").first
    expect(first.get_by_role("link").first).to_have_text("0")
    # The address holds all of it.
    again = visit(watch, server, page.url.removeprefix(server.address), width=width)
    expect(again.locator("table.list tbody tr").first.get_by_role("link").first).to_have_text("0")


def test_lists_and_features_work_without_scripts(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/features", scripts=False)
    page.locator("select[name=concept]").select_option("fraud")
    page.get_by_role("button", name="Apply").click()
    page.locator("table.list tbody th a").first.click()
    expect(page.locator(".contexts mark").first).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".trail")).to_contain_text("2 of")


def test_keys_go_through_features_and_tokens(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/features?sae=first&sort=feature&order=ascending")
    page.locator("table.list tbody th a").nth(1).click()
    expect(page.locator("h1")).to_have_text("Feature 1")
    scripts_ran(page)
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Feature 2")
    scripts_ran(page)
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text("Feature 1")
    scripts_ran(page)
    page.keyboard.press("ArrowRight")
    reading = page.locator(".reading")
    expect(reading).to_contain_text("savings” activates it at")
    page.keyboard.press("ArrowRight")
    expect(reading).to_contain_text("ledger1” activates it at 0.5")
    page.keyboard.press("ArrowLeft")
    expect(reading).to_contain_text("savings”")


def test_only_the_keyboard(watch: Watch, server: Served) -> None:
    """From the front page to a correction, without the mouse."""
    page = visit(watch, server, "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("ledger31")
    page.keyboard.press("Enter")
    page.wait_for_url("**/features?*")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/feature/first/31*")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Correct this":
            break
    # What has the focus shows it.
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("typed by hand")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "author":
            break
    page.keyboard.press("Control+a")
    page.keyboard.type("Keys")
    page.keyboard.press("Enter")
    expect(page.locator(".explanation")).to_have_text("typed by hand")


@pytest.mark.parametrize(("width", "feature"), [(WIDE, 30), (NARROW, 33)])
def test_an_explanation_is_corrected(
    watch: Watch, server: Served, width: int, feature: int
) -> None:
    page = visit(watch, server, f"/feature/first/{feature}", width=width)
    original = page.locator(".explanation").inner_text()
    page.get_by_text("Correct this").click()
    page.get_by_label("Explanation (en)").fill(f"robbed <b>banks</b> {width}")
    page.get_by_label("violence/insult").check()
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.get_by_text("Your correction is kept")).to_be_visible()
    expect(page.locator(".explanation")).to_have_text(f"robbed <b>banks</b> {width}")
    expect(page.locator(".card.main")).to_contain_text("corrected by Ada")
    expect(page.locator("aside")).to_contain_text(original)
    kept = [c for c in read_corrections(server.study) if (c.sae, c.feature) == ("first", feature)]
    assert {c.field for c in kept} == {"explanation", "concepts"}
    page.goto(f"{server.address}/features?q=robbed+{width}")
    expect(page.locator("table.list tbody th a")).to_have_text(str(feature))
    # The name is remembered for the next one.
    page.goto(f"{server.address}/feature/first/{feature + 1}")
    page.get_by_text("Correct this").click()
    expect(page.get_by_label("Your name")).to_have_value("Ada")


def test_the_theme_is_kept(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.goto(server.address + "/features")
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(ground) == light


def test_the_system_says_light_or_dark(watch: Watch, server: Served) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    grounds = {visit(watch, server, "/", scheme=s).evaluate(ground) for s in ("light", "dark")}
    assert len(grounds) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(watch: Watch, server: Served, scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), text on marked tokens included."""
    page = visit(watch, server, BEST, scheme=scheme)
    ratios = page.evaluate(_CONTRAST)
    assert len(ratios) > 50
    assert [found for found in ratios if found["ratio"] < 4.5] == []


@WIDTHS
def test_the_landscape_shows_and_selects(watch: Watch, server: Served, width: int) -> None:
    page = visit(watch, server, "/landscape?sae=first", width=width)
    canvas = page.locator("canvas[data-ready]")
    expect(canvas).to_be_visible()
    expect(page.locator("#at")).to_have_text("60 features")
    wait_for(page, lambda: page.evaluate(_COLOURS) > 3)
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + 14, box["y"] + 14)  # feature 0 lies in the corner
    expect(page.locator(".hover")).to_contain_text("Feature 0")
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 3, steps=4)
    page.mouse.up()
    rows = page.locator("section table.list tbody tr")
    # Rows of ten from top to bottom, six of them: the upper third holds two.
    expect(rows).to_have_count(20)
    page.get_by_role("link", name="As a list").click()
    expect(page.locator(".total")).to_contain_text("20 features of 20 selected")


def test_the_landscape_by_keys(watch: Watch, server: Served) -> None:
    page = visit(watch, server, "/landscape?sae=first")
    page.locator("canvas[data-ready]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#at")).to_contain_text("Feature ")
    first = page.locator("#at").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#at")).not_to_have_text(first)
    page.keyboard.press(" ")
    expect(page.locator("section table.list tbody tr")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("Feature ")


@WIDTHS
def test_a_text_is_diagnosed(watch: Watch, server: Served, width: int) -> None:
    page = visit(watch, server, "/diagnose", width=width)
    page.get_by_label("Text", exact=True).fill("they hid the stolen savings\nof <b>all</b>")
    page.get_by_role("button", name="Diagnose").click()
    tokens = page.locator(".tokens button")
    expect(tokens).to_have_count(7)
    scripts_ran(page)
    tokens.nth(4).click()
    panel = page.locator(".at")
    expect(panel).to_contain_text("On savings")
    expect(panel.locator("tbody tr")).to_have_count(4)
    expect(panel.locator("tbody tr").first).to_contain_text("1.20")
    page.keyboard.press("ArrowLeft")
    expect(panel).to_contain_text("On stolen")
    page.keyboard.press("ArrowLeft")
    expect(panel).to_contain_text("Nothing that is explained fires here")
    page.keyboard.press("End")
    expect(panel).to_contain_text("On <b>all</b>")
    # Layers by tokens, one map per concept.
    heat = page.locator("table.heat")
    expect(heat.locator("tbody tr")).to_have_count(2)
    expect(heat.locator("tbody tr").first.locator("td")).to_have_count(7)
    assert heat.locator("tbody td").nth(4).get_attribute("title") == "1.20"
    page.get_by_role("button", name="fraud").click()
    assert heat.locator("tbody td").nth(4).get_attribute("title") == "0.60"
    heat.locator("tbody td").nth(3).click()
    expect(panel).to_contain_text("On stolen")
    assert width_beyond(page) <= 0
    panel.get_by_role("link").first.click()
    expect(page.locator("h1")).to_contain_text("Feature ")


@WIDTHS
def test_two_texts_side_by_side(watch: Watch, server: Served, width: int) -> None:
    page = visit(watch, server, "/diagnose", width=width)
    page.get_by_label("Text", exact=True).fill("stolen savings")
    page.get_by_label("A second text").fill("a nurse")
    page.get_by_role("button", name="Diagnose").click()
    expect(page.locator(".result")).to_have_count(2)
    scripts_ran(page)
    rows = page.locator("#difference ~ .scroll tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("-0.90")
    page.locator(".result").nth(1).locator(".tokens button").nth(1).click()
    expect(page.locator(".result").nth(1).locator(".at")).to_contain_text("On nurse")
    assert width_beyond(page) <= 0


def test_what_cannot_be_diagnosed_is_said(server: Served, watch: Watch) -> None:
    watched = watch()
    watched.meant = "422"  # the console repeats the status of the answer
    page = watched.page
    page.goto(server.address + "/diagnose")
    page.get_by_label("Text", exact=True).fill("   ")
    page.get_by_role("button", name="Diagnose").click()
    expect(page.get_by_role("alert")).to_have_text("Write a text first.")


_CONTRAST = """() => {
  const parse = (text) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const over = (top, below) => {
    const share = top[3] / 255;
    return [0, 1, 2].map((i) => share * top[i] + (1 - share) * below[i]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    return over(parse(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .sr")) continue;
    const below = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)];
    found.push({ ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
      text: element.textContent.slice(0, 40), name: element.tagName + "." + element.className });
  }
  return found;
}"""
_COLOURS = """() => {
  const canvas = document.querySelector("canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const found = new Set();
  for (let place = 0; place < data.length; place += 4) {
    if (data[place + 3] > 150) found.add(data.slice(place, place + 3).join());
  }
  return found.size;
}"""
