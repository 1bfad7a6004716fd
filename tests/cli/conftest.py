from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import study_folder

from safesail.cli import main
from safesail.pipeline import explain
from safesail.study import Study


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without results; not to be changed."""
    return study_folder.make_study(tmp_path_factory.mktemp("study") / "fresh")


@pytest.fixture(scope="session")
def explained(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ranked, collected and explained; not to be changed."""
    folder = study_folder.copy_study(fresh, tmp_path_factory.mktemp("study") / "explained")
    explain(Study.open(folder))
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A study of the test's own."""
    return lambda study: study_folder.copy_study(study, tmp_path / "study")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, what it printed, what it said on stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["safesail", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run
