"""What all tests share: no network, quiet libraries, and skips that fail where none is expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Nothing in the tests may reach a hub; set before any library reads it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("OPENAI_API_KEY", None)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Turn every skip into a failure where SAFESAIL_NO_SKIPS is set."""
    if report.skipped and os.environ.get("SAFESAIL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where no skip is expected: {report.longrepr}"


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of public safety texts, named by SAFESAIL_TEST_DATA."""
    folder = os.environ.get("SAFESAIL_TEST_DATA")
    if not folder:
        pytest.skip("SAFESAIL_TEST_DATA does not name a folder of public safety texts")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without results; not to be changed."""
    import study_folder  # here, for it brings libraries that read the environment

    return study_folder.make_study(tmp_path_factory.mktemp("study") / "fresh")


@pytest.fixture(scope="session")
def explained(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ranked, collected and explained; not to be changed."""
    import study_folder

    from safesail.pipeline import explain
    from safesail.study import Study

    folder = study_folder.copy_study(fresh, tmp_path_factory.mktemp("study") / "explained")
    explain(Study.open(folder))
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A study of the test's own."""
    import study_folder

    return lambda study: study_folder.copy_study(study, tmp_path / "study")
