"""Ranking published SAEs: the size first, then the question, and nothing is fetched twice."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import hub, run_with_hub
from study_folder import change_setting

from safesail.cli._downloads import approval
from safesail.sparse_autoencoder import Downloads

Copy = Callable[[Path], Path]
# In one process, as each costs seconds to start: commands, then the library; the hub is told of
# each step, so that its log can be cut there.
COMMANDS = """
import contextlib, io, json, sys, urllib.request
from safesail.cli import main
from safesail.errors import SafesailError
from safesail.pipeline import rank
from safesail.study import Study

def step(name):
    with contextlib.suppress(Exception):
        urllib.request.urlopen({endpoint!r} + "/step/" + name)

def run(name, *arguments):
    step(name)
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["safesail", "rank-saes", "--study", {study!r}, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))

run("unasked")
step("library")
seen = []
try:
    rank(Study.open({study!r}), approve=lambda downloads: bool(seen.append(downloads)))
except SafesailError as error:
    print(json.dumps([list(seen[0].candidates), seen[0].size, str(error)]))
run("some", "--yes", "--sae", "*first")
run("agreed", "--yes")
run("again", "--json", "--layers", "1")
run("narrow", "--sae", "upper")
step("end")
"""


def test_the_question_before_a_download(fresh: Path, copy: Copy, tmp_path: Path) -> None:
    study = copy(fresh)
    root = tmp_path / "hub" / "someone" / "saes"
    root.mkdir(parents=True)
    for name in ("first", "second"):
        shutil.move(study / "saes" / name, root / name)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    specifications = '["saes/*", "someone/saes:first", "someone/saes:second"]'
    change_setting(study, '["saes/*"]', specifications)
    with hub(tmp_path / "hub") as endpoint:
        code = COMMANDS.format(endpoint=str(endpoint), study=str(study))
        answer = run_with_hub(endpoint, tmp_path / "cache", code)
        asked = _by_step(endpoint.requests)
    unasked, library, some, agreed, again, narrow = map(json.loads, answer.splitlines())

    summary = f"2 SAEs to download: {size / 1e6:.1f} MB, into {tmp_path / 'cache' / 'hub'}"
    assert unasked[0] == 1
    assert unasked[2] == f"error: {summary}: add --yes to agree, as nobody can be asked here\n"
    assert asked["unasked"] == ["/api/models/someone/saes"]

    assert library[:2] == [["someone-saes-first", "someone-saes-second"], size]
    assert f"nothing was downloaded ({summary})" in library[2]
    assert asked["library"] == ["/api/models/someone/saes"]

    assert some[0] == 0, some
    assert "1 SAE to download: " in some[2]
    assert any(path.endswith("first/sae_weights.safetensors") for path in asked["some"])
    assert not any("second" in path for path in asked["some"])

    assert agreed[0] == 0, agreed
    assert "1 SAE to download: " in agreed[2]
    assert not any("first" in path for path in asked["agreed"])
    assert (study / "rankings.parquet").exists()

    # What is ranked is neither fetched nor asked for again; layers are known from the table.
    assert again[0] == 0
    assert {row["sae"] for row in json.loads(again[1])["rows"]} == {
        "someone-saes-first",
        "someone-saes-second",
    }
    assert narrow[0] == 0
    assert "upper" in narrow[1]
    assert "someone-saes-first" not in narrow[1].split("By concept")[0]
    assert asked["again"] == asked["narrow"] == []


def _by_step(requests: list[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Paths asked for in each step; what the hub's client asks on its own account is left out."""
    steps: dict[str, list[str]] = {}
    name = ""
    for _, path, _ in requests:
        if path.startswith("/step/"):
            name = path.removeprefix("/step/")
            steps[name] = []
        elif name and "someone/" in path:
            steps[name].append(path.split("?")[0])
    return steps


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_the_user_is_asked(
    answer: str, agreed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    downloads = Downloads(("a", "b"), 3_200_000_000, Path("cache"))
    assert approval(yes=False)(downloads) is agreed
    said = capsys.readouterr()
    assert "2 SAEs to download: 3.2 GB, into cache\nDownload them?" in said.err
    assert said.out.strip() == ""
