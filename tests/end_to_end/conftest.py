"""The command line as a user runs it, without starting a new process each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from safesail.cli import main


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def safesail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run `safesail` in an empty folder; fails the test unless it exits as expected."""

    def run(*arguments: str, exit_code: int = 0, **environment: str) -> Done:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr("sys.argv", ["safesail", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capsys.readouterr()
        done = Done(printed.out, printed.err)
        assert (ended.value.code or 0) == exit_code, f"{' '.join(arguments)}\n{done}"
        return done

    return run
