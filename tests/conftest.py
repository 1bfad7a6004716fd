"""What all tests share: no network, quiet libraries, and skips that fail where none is expected."""

from __future__ import annotations

import os
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
