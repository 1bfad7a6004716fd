"""A study whose tables are made up, so that pages have something to show; no model is needed."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safesail.study import Study
from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    table_from_rows,
    write_table,
)

Row = dict[str, Any]
SAES = {"first": 1, "second": 2}
CONCEPTS = ("violence", "violence/insult", "fraud")
# More than a page of a list holds.
FEATURES_OF = {"first": 60, "second": 6}
BEST_FRAUD = 7
_RESAMPLES = 40
_WORDS = ["the", "auditors", "traced", "stolen", "savings", "before", "a", "nurse", "and", "river"]

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script><!--",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "\u202eright to left\u202c \u2066isolate",
    "\x00\x1b[2J\x1b]0;title\x07\r\n\u2028\x85",
    '=HYPERLINK("http://example.invalid")',
    "../../../../etc/passwd",
    "'; DROP TABLE catalog; --",
    'fts" OR words:* NEAR(a b) -x ^y {z}',
    "\ufeff\ue000\u200b\u00ad",
    "https://example.invalid/x.png",
]
LONG = "x" * 1_000_000
_SETTINGS = """
[model]
name = "builtin:lab"
[candidates]
saes = []
[concepts]
files = ["builtin:starter"]
[corpus]
[[corpus.sources]]
path = "corpus.jsonl"
"""


def make_study(folder: Path, hostile: bool = False) -> Study:
    """Write a study; with `hostile`, texts of its own that would harm a careless page."""
    folder.mkdir(parents=True)
    (folder / "safesail.toml").write_text(_SETTINGS, encoding="utf-8")
    draw = random.Random(0)
    study = Study.open(folder)
    rankings = [_ranking(sae, concept, draw) for concept in CONCEPTS for sae in SAES]
    write_table(study.rankings, table_from_rows(rankings, RANKINGS), RANKINGS, {"seed": 0})
    for sae, count in FEATURES_OF.items():
        features, explanations, contexts = [], [], []
        for number in range(count):
            features += _features(sae, number, draw)
            explanations += _explanations(sae, number, draw)
            contexts += _contexts(sae, number, draw)
        if hostile and sae == "first":
            for number, text in enumerate([*HOSTILE, LONG], start=count):
                features.append({**_features(sae, 1, draw)[0], **_hostile(number, text)})
                explanations.append({**_explanations(sae, 1, draw)[0], **_blamed(number, text)})
                contexts.append({**_contexts(sae, 1, draw)[0], **_quoted(number, text)})
        making = {"sae": sae, "seed": 0}
        for path, rows, schema in (
            (study.features(sae), features, FEATURES),
            (study.explanations(sae), explanations, EXPLANATIONS),
            (study.contexts(sae) / "part-00000.parquet", contexts, CONTEXTS),
        ):
            write_table(path, table_from_rows(rows, schema), schema, making)
    return study


def _hostile(number: int, text: str) -> Row:
    short = text[:50]
    return {
        "feature": number,
        "top_logits": [short] * 3,
        "bottom_logits": [short],
        "concept": "fraud",
    }


def _blamed(number: int, text: str) -> Row:
    return {
        "feature": number,
        "explanation": text,
        "judge_model": text[:80],
        "judge_concepts": ["fraud", text[:80]],
        "error": text[:80],
        "discrimination": 0.6,
    }


def _quoted(number: int, text: str) -> Row:
    tokens = ["before ", text, " after"]
    return {
        "feature": number,
        "document": text[:80],
        "tokens": tokens,
        "token_ids": [1, 2, 3],
        "activations": [0.0, 2.0, 0.0],
        "peak": 2.0,
        "peak_at": 1,
    }


def _ends(name: str, value: float, width: float) -> Row:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def _ranking(sae: str, concept: str, draw: random.Random) -> Row:
    best = sae == "first"
    count = 4 if best else 2
    return {
        "sae": sae,
        "source": f"saes/{sae}",
        "source_fingerprint": "0" * 16,
        "architecture": "jumprelu",
        "hook_point": f"blocks.{SAES[sae]}.hook_resid_post",
        "layer": SAES[sae],
        "concept": concept,
        "width": 1024,
        "pairs": 30,
        "independent_pairs": 30,
        "l0": 16.0 if best else 8.0,
        "fvu": 0.02,
        "dead_share": 0.0,
        "separating_resamples": [float(count + draw.randint(-1, 1)) for _ in range(_RESAMPLES)],
        "separation_resamples": [0.9 + draw.uniform(-0.05, 0.05) for _ in range(_RESAMPLES)],
        **_ends("separating_features", count, 1),
        **_ends("separation_best", 0.9 if best else 0.8, 0.05),
        **_ends("i_cdf", 0.01, 0.001),
        "separation_chance": 0.1,
        "auroc": 0.95,
        "called_features": 10,
        "least_callable_f": 0.2,
        "rank": 1 if best else 2,
        "tied_with_best": best,
        "best_probability": 0.8 if best else 0.2,
        "mean_rank": 1.0 if best else 2.0,
        "health": "ok",
        "warnings": ["few tokens"] if best else [],
    }


def _concept(number: int) -> str:
    return "fraud" if number == BEST_FRAUD else CONCEPTS[number % 3]


def _features(sae: str, number: int, draw: random.Random) -> list[Row]:
    return [
        {
            "sae": sae,
            "layer": SAES[sae],
            "feature": number,
            "concept": _concept(number),
            **_ends("f", 0.5, 0.1),
            "called": number % 10 != 9,
            "separation": draw.random(),
            "specificity": 0.3,
            "q999": 4.0,
            "tokens_seen": 100_000,
            "fired": 900 + number,
            "density": 0.009,
            "max_activation": 4.5,
            "histogram_edges": [0.1, 1.0, 2.0, 5.0],
            "histogram_counts": [500, 300, 100],
            "top_logits": [" savings", " account"],
            "bottom_logits": [" river"],
            "nearest_features": [(number + 1) % FEATURES_OF[sae], 999],
            "status": "collected",
        }
    ]


def _explanations(sae: str, number: int, draw: random.Random) -> list[Row]:
    best = sae == "first" and number == BEST_FRAUD
    score = 0.97 if best else 0.5 + 0.4 * draw.random()
    judged = {
        "sae": sae,
        "layer": SAES[sae],
        "feature": number,
        "language": "en",
        "concepts": [_concept(number)],
        "judge_concepts": [_concept(number)],
        "explanation": f"mentions of savings that were stolen, number {number}",
        "explainer": "judge",
        "judge_model": "made-up-judge",
        "scorer": "items",
        **_ends("correlation", score - 0.2, 0.05),
        **_ends("discrimination", score, 0.03),
        "observations": 120,
        "calls": 5,
        "prompt_tokens": 2_000,
        "completion_tokens": 100,
        "cost_usd": 0.01,
        "status": "scored",
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    unscored = dict.fromkeys(
        f"{n}{e}" for n in ("correlation", "discrimination") for e in ("", "_low", "_high")
    )
    if number % 10 == 5:
        refused = {"explanation": None, "status": "refused", "error": "the judge refused"}
        judged |= {**unscored, **refused, "observations": 0}
    lexical = judged | {
        "explanation": 'lexical: at "savings"',
        "explainer": "lexical",
        "judge_model": None,
        "judge_concepts": None,
        "scorer": None,
        "status": "scored",
        "error": None,
        "calls": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": None,
        **_ends("discrimination", 0.55, 0.05),
    }
    chinese = judged | {**unscored, "language": "zh", "explanation": "提到被盗的储蓄和诈骗"}
    found = [judged, lexical]
    return [*found, chinese | {"status": "explained"}] if number == 3 else found


def _contexts(sae: str, number: int, draw: random.Random) -> list[Row]:
    found = []
    for place in range(24):
        kind = ("active", "active", "silent", "hard_silent")[place % 4]
        tokens = [f" {draw.choice(_WORDS)}" for _ in range(12)]
        activations = [0.0] * 12
        if kind == "active":
            tokens[5], activations[5] = " savings", 4.0 * (place + 1) / 24
            tokens[7], activations[7] = f" ledger{number}", 0.5
        if number == 3:
            tokens[2] = " 警方冻结了被盗的储蓄"
        peak = max(activations)
        found.append(
            {
                "sae": sae,
                "layer": SAES[sae],
                "feature": number,
                "split": "explain",
                "kind": kind,
                "level": min(10, round(10 * peak / 4.0)) if peak else 0,
                "sample": "top" if kind == "active" and place > 12 else "random",
                "document": f"corpus.jsonl:{place}",
                "start": 32 * place,
                "tokens": tokens,
                "token_ids": list(range(12)),
                "activations": activations,
                "peak": peak,
                "peak_at": activations.index(peak),
                "weight": 1.0,
            }
        )
    return found
