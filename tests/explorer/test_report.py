"""The report: one file that holds everything, loads nothing, and is read without scripts too."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import NARROW, WIDE, Watched, width_beyond
from made_up_study import BEST_FRAUD, FEATURES_OF, HOSTILE
from playwright.sync_api import expect

from safesail.cli import main
from safesail.errors import InputError, StorageError
from safesail.explorer import Explorer, write_report
from safesail.explorer._corrections import Correction
from safesail.explorer._text import visible
from safesail.study import Study

Watch = Callable[..., Watched]
TOTAL = sum(FEATURES_OF.values())


@pytest.fixture(scope="module")
def report(made_up: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    written = write_report(made_up, path)
    assert (written.features, written.total) == (TOTAL, TOTAL)
    return path


@pytest.fixture(scope="module")
def hostile_report(hostile: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(hostile, path)
    return path


def test_it_is_one_file_that_names_no_other(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(?!#|["'])""", text)
    assert "url(" not in text
    assert "@import" not in text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_opens_and_narrows(watch: Watch, report: Path, width: int) -> None:
    page = watch(width=width).page
    page.goto(report.as_uri())
    # Its script ran, so its hash is right; so is the style's.
    expect(page.get_by_role("button", name="Dark")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).margin") == "0px"
    assert width_beyond(page) <= 0
    entries = page.locator("details.entry")
    expect(entries).to_have_count(TOTAL)
    page.get_by_label("Only those with").fill(f"ledger{BEST_FRAUD}")
    expect(page.locator("#narrowed")).to_have_text(f"1 of {TOTAL}")
    entries.locator("visible=true").first.locator("summary").first.click()
    expect(page.locator(".contexts mark").locator("visible=true").first).to_be_visible()
    assert width_beyond(page) <= 0
    page.get_by_label("Only those with").fill("")
    page.get_by_role("button", name="Dark").click()
    expect(page.get_by_role("button", name="Light")).to_be_visible()


def test_a_link_opens_the_feature(watch: Watch, report: Path) -> None:
    page = watch().page
    page.goto(report.as_uri())
    fraud = page.locator("section.card", has=page.get_by_role("heading", name="fraud"))
    fraud.get_by_role("link").first.click()
    best = page.locator(f"#feature-first-{BEST_FRAUD}")
    expect(best).to_have_attribute("open", "")
    expect(best.locator(".histogram path")).to_be_visible()
    for title in ("Strongest", "Drawn from each level", "Silent though its words occur", "Silent"):
        expect(best.get_by_role("heading", name=title).first).to_be_visible()


def test_it_is_read_without_scripts(watch: Watch, report: Path) -> None:
    page = watch(scripts=False).page
    page.goto(report.as_uri())
    expect(page.locator("table.ranking tbody tr")).to_have_count(2)
    expect(page.locator("figure.plot")).to_be_visible()
    page.locator("details.entry summary").first.click()
    expect(page.locator(".contexts mark").first).to_be_visible()
    expect(page.locator("#cost ~ .scroll").first).to_contain_text("made-up-judge")


def test_hostile_text_does_nothing(watch: Watch, hostile_report: Path) -> None:
    page = watch().page
    page.goto(hostile_report.as_uri())
    page.get_by_label("Only those with").fill("alert")
    for number, text in enumerate(HOSTILE, start=FEATURES_OF["first"]):
        entry = page.locator(f"#feature-first-{number}")
        assert entry.locator(".explanation bdi").text_content() == visible(text)
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('img, iframe, [onerror], base').length") == 0


def test_the_best_come_first_and_fewer_where_asked(made_up: Study, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write_report(made_up, path, limit=3).features == 3
    text = path.read_text(encoding="utf-8")
    assert text.count('<details class="entry"') == 3
    assert (
        text.index(f'id="feature-first-{BEST_FRAUD}"') < text.index('<details class="entry"') + 99
    )
    assert f"3 of {TOTAL} features" in text


def test_corrections_are_in_it(own: Study, tmp_path: Path) -> None:
    Explorer(own).correct(
        Correction(
            author="Ada", sae="first", feature=3, language="en", field="explanation",
            value="robbed banks", explained_by="made-up-judge",
            corrected="mentions of savings that were stolen, number 3",
        )
    )  # fmt: skip
    write_report(own, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "robbed banks" in text
    assert "corrected by <bdi>Ada</bdi>" in text


def test_a_study_without_results_is_told_what_to_run(own: Study, tmp_path: Path) -> None:
    own.rankings.unlink()
    for sae in FEATURES_OF:
        own.features(sae).unlink()
        own.explanations(sae).unlink()
    with pytest.raises(InputError, match=r"no results in .*: run `safesail explain` first"):
        write_report(own, tmp_path / "report.html")


def test_an_earlier_report_survives_a_fault(own: Study, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("earlier")
    (own.contexts("first") / "part-00000.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(StorageError, match="cannot read"):
        write_report(own, path)
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_command(
    own: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(
            sys, "argv", ["safesail", "report", "--study", str(own.folder), *arguments]
        )
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    assert run("--limit", "5") == 0
    assert f"report.html (5 of {TOTAL} features" in capsys.readouterr().err
    assert run("--output", str(own.folder / "safesail.toml")) == 2
    assert "does not end in .html" in capsys.readouterr().err
