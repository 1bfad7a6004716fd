"""A small study of the lab whose features are collected, and what a judge's run leaves in it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from study_folder import copy_study

from safesail.lab import contrast_pairs_file
from safesail.lab.judge import MODEL, KnownTruthJudge, ServerLog
from safesail.lab.judge._noise import canonical, digest
from safesail.pipeline import Selection, collect, explain, start_study
from safesail.study import Study

SAE = "layer2-resid-topk16"
FEATURES = 12
# The first of them, of each of which three prompts are asked.
PILOTS = 5
QUALITY = "medium"

# What may differ between two runs that ask the same of the same judge; its URL has a port.
TAKEN = ["calls", "cost_usd", "created_at"]
TAKEN_ELSEWHERE = [*TAKEN, "judge_url"]
_SMALLER = {
    "sample_tokens = 200000": "sample_tokens = 6000",
    "max_tokens = 200000": "max_tokens = 16000",
}


class Whole(NamedTuple):
    """A run that nothing disturbed: its table, and what its server paid for."""

    rows: pd.DataFrame
    tokens: int
    paid: Counter[str]


def make_collected(folder: Path) -> Path:
    """The lab's study with fewer pairs and texts, and contexts of one SAE's best features."""
    folder.mkdir()
    pairs = contrast_pairs_file().read_text(encoding="utf-8").splitlines(keepends=True)
    concepts = folder / "pairs.jsonl"
    concepts.write_text("".join(pairs[::4]), encoding="utf-8")
    start_study(folder, model="builtin:lab", saes=[], concepts=[str(concepts)], corpus=[])
    path = folder / "safesail.toml"
    text = path.read_text(encoding="utf-8")
    for old, new in _SMALLER.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    (found,) = collect(Study.open(folder), Selection(sae=SAE, limit=FEATURES))
    assert {row["status"] for row in found.rows} == {"collected"}
    return folder


def explain_whole(collected: Path, folder: Path) -> Whole:
    """Explain a copy of the study, in one go."""
    study = Study.open(copy_study(collected, folder))
    with KnownTruthJudge(QUALITY) as judge:
        asked = study.with_judge(url=judge.url, model=MODEL)
        explain(asked, Selection(sae=SAE, limit=FEATURES))
    rows = rows_of(folder)
    assert set(rows["status"]) == {"scored"}
    assert set(judge.log.paid.values()) == {1}
    return Whole(rows, tokens_of(judge.log), judge.log.paid)


def asking(study: Path, url: str, *more: str, limit: int = FEATURES) -> list[str]:
    """Arguments of the command that has a judge explain the study's best features."""
    judge = ["--judge-url", url, "--judge-model", MODEL]
    return ["explain", "--study", str(study), "--sae", SAE, "--limit", str(limit), *judge, *more]


def rows_of(study: Path) -> pd.DataFrame:
    """The explanations table, in the order of features, languages and scorers."""
    table = pd.read_parquet(study / "explanations" / f"{SAE}.parquet")
    return table.sort_values(["feature", "language", "scorer"]).reset_index(drop=True)


def assert_same(first: pd.DataFrame, second: pd.DataFrame, *, but: list[str]) -> None:
    """Fail where two tables differ, to the last bit, in another column than those."""
    # What a column holds is the schema's; pandas makes floats of integers where one is missing.
    pd.testing.assert_frame_equal(
        first.drop(columns=but), second.drop(columns=but), check_exact=True, check_dtype=False
    )


def tokens_of(log: ServerLog) -> int:
    """Tokens that a server counted."""
    return log.prompt_tokens + log.completion_tokens


def answers_in(study: Path) -> list[dict[str, Any]]:
    """What SQLite holds of each answer; `request` and `response` as objects."""
    with closing(sqlite3.connect(study / "judge.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM answers")]
    for one in found:
        one["request"] = json.loads(one["request"])
        one["response"] = json.loads(one["response"])
    return found


def paid_for(answer: dict[str, Any]) -> str:
    """The name under which a server's log has an answer's request."""
    return digest(canonical(answer["request"]))


def is_refusal(answer: dict[str, Any]) -> bool:
    """Whether the known-truth judge refused."""
    message = answer["response"]["choices"][0]["message"]
    return bool(message["refusal"]) or message["content"].startswith("I'm sorry")
