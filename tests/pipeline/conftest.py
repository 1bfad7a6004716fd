"""A study of the lab to be explained by a judge, and the command line that does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from safesail.cli import main

if TYPE_CHECKING:
    from judged_study import Whole


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, ranked and collected; not to be changed."""
    from judged_study import make_collected

    return make_collected(tmp_path_factory.mktemp("lab") / "collected")


@pytest.fixture(scope="session")
def whole(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a run that nothing disturbs makes of it."""
    from judged_study import explain_whole

    return explain_whole(collected, tmp_path_factory.mktemp("lab") / "whole")


@pytest.fixture
def study(collected: Path, copy: Callable[[Path], Path]) -> Path:
    """The study, ranked and collected, to change."""
    return copy(collected)


@pytest.fixture
def safesail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; fails the test unless it exits as expected."""

    def run(*arguments: str, exit_code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["safesail", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        done = Done(*capsys.readouterr())
        assert (ended.value.code or 0) == exit_code, f"{' '.join(arguments)}\n{done}"
        return done

    return run
