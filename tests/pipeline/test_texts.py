"""Texts that do not fit the model are named with their row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_folder import make_study

from safesail.errors import InputError
from safesail.pipeline import rank
from safesail.study import Study


def test_a_pair_longer_than_the_context_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    pair = {"concept": "fraud", "positive": "a cold boat " * 60, "negative": "a small boat"}
    with (study / "concepts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(pair) + "\n")
    row = len((study / "concepts.jsonl").read_text(encoding="utf-8").splitlines())
    expected = rf"concepts\.jsonl, line {row}: .* is longer than the model's context of 64 tokens"
    with pytest.raises(InputError, match=expected):
        rank(Study.open(study))
    assert not (study / "rankings.parquet").exists()
