"""Texts that do not fit the model are read in pieces, and that is said."""

from __future__ import annotations

import json
from pathlib import Path

from study_folder import make_study

from safesail.pipeline import rank
from safesail.study import Study


def test_a_pair_longer_than_the_context_is_read_in_pieces(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    # Of both texts the first 120 words are the same: only the second piece can tell them apart.
    same = "a cold boat " * 40
    with (study / "concepts.jsonl").open("a", encoding="utf-8") as file:
        for number in range(12):
            positive, negative = (f"{same} {word} {number}" for word in ("thief", "small"))
            pair = {"concept": "length", "positive": positive, "negative": negative}
            file.write(json.dumps(pair) + "\n")
    ranking = rank(Study.open(study))
    rows = [row for row in ranking.rows if row["concept"] == "length"]
    assert rows
    assert max(row["i_cdf"] for row in rows) > 0
    text = "24 of the pairs' texts are longer than the model's context and were read in pieces"
    assert all(text in row["warnings"] for row in ranking.rows)
