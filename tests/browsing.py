"""A server over a made-up study, and pages of a browser that are watched."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from made_up_diagnoser import MadeUpDiagnoser
from playwright.sync_api import ConsoleMessage, Dialog, Page, Request

from safesail.explorer import Explorer
from safesail.explorer._app import make_app, make_server
from safesail.study import Study

WIDE, NARROW = 1280, 390
"""Widths of the windows, in CSS pixels."""


@dataclass
class Served:
    """A running server.

    Attributes:
        address: where it answers, without a slash at the end.
        study: what it serves.
        explorer: what its pages read.
    """

    address: str
    study: Study
    explorer: Explorer


@dataclass
class Watched:
    """A page of the browser, and all that should not have happened on it."""

    page: Page
    faults: list[str] = field(default_factory=list)
    meant: str | None = None
    """What stands in faults that a test brought about, whenever they arrive."""

    def check(self) -> None:
        """Fail for a dialog, an error, a breach of the policy, or a request to elsewhere."""
        meant = self.meant
        assert [fault for fault in self.faults if meant is None or meant not in fault] == []


def served(study: Study) -> Iterator[Served]:
    """Serve a study on a free port while the caller goes on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        explorer = Explorer(study)
        explorer.search.refresh(explorer.catalog, wait=True)
        # What the front page loads takes seconds, which no test of a page should wait for.
        assert explorer.overview.lines
        app = make_app(
            explorer,
            port,
            map_features=made_up_map,
            open_diagnoser=lambda: MadeUpDiagnoser(study),
            author="tester",
        )
        server = make_server(app)
        sockets = {"sockets": [listening]}
        thread = threading.Thread(target=server.run, kwargs=sockets, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Served(f"http://127.0.0.1:{port}", study, explorer)
        server.should_exit = True
        thread.join(timeout=10)


def made_up_map(sae: str) -> list[tuple[int, float, float]]:
    """Places for the features of any SAE, well apart."""
    return [(number, float(number % 10), float(number // 10)) for number in range(90)]


def record(watched: Watched) -> None:
    """Note down what should not happen."""
    page, faults = watched.page, watched.faults

    def dialog(found: Dialog) -> None:
        faults.append(f"dialog: {found.message}")
        found.dismiss()

    def line(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    def request(sent: Request) -> None:
        if not sent.url.startswith(("http://127.0.0.1:", "file:///", "data:")):
            faults.append(f"request: {sent.url}")

    page.on("dialog", dialog)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", line)
    page.on("request", request)


def wait_for(page: Page, done: Callable[[], bool]) -> None:
    """Let a page go on until something is so, or half a minute is over."""
    for _ in range(600):
        if done():
            return
        page.wait_for_timeout(50)
    raise AssertionError("half a minute was not enough")


def width_beyond(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    beyond: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return beyond
