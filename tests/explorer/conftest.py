"""One made-up study and one server for all tests of the pages, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import WIDE, Served, Watched, record, served
from made_up_study import make_study
from playwright.sync_api import Browser, expect, sync_playwright

from safesail.study import Study

# Long beyond what any page takes: a busy machine is no failure.
expect.set_options(timeout=30_000)

_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with texts of no harm; not to be changed."""
    return make_study(tmp_path_factory.mktemp("made_up") / "study")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same with hostile texts; not to be changed."""
    return make_study(tmp_path_factory.mktemp("hostile") / "study", hostile=True)


@pytest.fixture
def own(made_up: Study, tmp_path: Path) -> Study:
    """A study to change, without an index."""
    without = shutil.ignore_patterns("explorer")
    return Study.open(shutil.copytree(made_up.folder, tmp_path / "study", ignore=without))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose study tests correct: features of their own each."""
    yield from served(make_study(tmp_path_factory.mktemp("served") / "study"))


@pytest.fixture(scope="session")
def hostile_server(hostile: Study) -> Iterator[Served]:
    """A server over hostile texts."""
    yield from served(hostile)


# Of a module: while Playwright lives, its event loop runs in this thread, and tests elsewhere
# could run none of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, of `CHROMIUM` or the system."""
    named = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(named).exists():
        pytest.skip(f"no Chromium at {named}: install it or name it with CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=named, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open pages that are watched, and check all of them in the end."""
    opened: list[Watched] = []

    def open_page(width: int = WIDE, scheme: str = "light", scripts: bool = True) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        context.set_default_timeout(30_000)
        watched = Watched(context.new_page())
        record(watched)
        opened.append(watched)
        return watched

    yield open_page
    for one in opened:
        one.page.context.close()
        one.check()
