"""An OpenAI-compatible judge is asked once, and its answers land in the table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from judge_server import JudgeServer
from study_folder import make_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def test_answers_land_in_the_table_and_are_paid_once(study: Path, safesail) -> None:
    arguments = ["explain", "--study", str(study), "--limit", "5", "--json"]
    with JudgeServer() as server:
        asked = ["--judge-url", server.url, "--judge-model", "test-judge"]
        first = json.loads(safesail(*arguments, *asked).stdout)["explanations"]
        sent = len(server.requests)
        assert sent >= 10  # at least an explanation and a simulation for each feature
        second = json.loads(safesail(*arguments, *asked).stdout)["explanations"]
        assert len(server.requests) == sent
        assert second == first
        # Even where the table is lost, what was paid for is not asked again.
        (study / "explanations" / f"{first[0]['sae']}.parquet").unlink()
        third = json.loads(safesail(*arguments, *asked).stdout)["explanations"]
        assert len(server.requests) == sent
    scored = [row for row in first if row["status"] == "scored"]
    assert len(scored) >= 3
    assert all(row["judge_model"] == "test-judge" for row in scored)
    assert all(row["calls"] >= 2 and row["prompt_tokens"] > 0 for row in scored)
    key = ("feature", "explanation", "correlation", "correlation_low", "discrimination")
    assert [[row[k] for k in key] for row in third] == [[row[k] for k in key] for row in first]
    # The lexical baseline stands beside the judge's rows, under its own name.
    safesail(*arguments)
    table = pd.read_parquet(study / "explanations" / f"{first[0]['sae']}.parquet")
    assert set(table["explainer"]) == {"judge", "lexical"}


def test_a_dry_run_sends_nothing(study: Path, safesail) -> None:
    with JudgeServer() as server:
        asked = ["--judge-url", server.url, "--judge-model", "test-judge", "--dry-run", "--json"]
        done = safesail("explain", "--study", str(study), "--limit", "5", *asked)
        assert not server.requests
    estimate = json.loads(done.stdout)
    assert estimate["features"] + estimate["skipped"] == 5
    assert estimate["calls"] >= 2 * estimate["features"]


def test_no_key_and_no_server_are_one_clear_line(study: Path, safesail) -> None:
    asked = ["explain", "--study", str(study), "--limit", "5", "--judge-model", "m"]
    done = safesail(*asked, exit_code=1, OPENAI_API_KEY="")
    assert done.stderr.count("\n") == 1
    assert "OPENAI_API_KEY" in done.stderr
    done = safesail(*asked, "--judge-url", "http://127.0.0.1:9/v1", exit_code=1)
    assert "http://127.0.0.1:9/v1" in done.stderr.splitlines()[-1]
