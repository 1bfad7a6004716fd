"""A readable page on what a study has found so far."""

from __future__ import annotations

from collections import Counter
from typing import Any

from safesail.ranking import Ranking
from safesail.study import Study
from safesail.tables import EXPLANATIONS, RANKINGS, explained_by, markdown_text, read_table

_FEATURES_SHOWN = 50


def summarize(study: Study, sae: str) -> str:
    """Markdown with the ranking and the best scored features of one SAE.

    Args:
        study: a study with rankings and explanations.
        sae: name of the explained SAE.

    Raises:
        StorageError: a result is missing or cannot be read.
    """
    ranking = read_table(study.rankings, RANKINGS).to_pylist()
    explanations = read_table(study.explanations(sae), EXPLANATIONS).to_pylist()
    return "\n".join(
        [
            f"# {study.folder.name}",
            "",
            f"Model: `{study.configuration.model.name}`. "
            f"Explained SAE: `{sae}`. Concepts: {_concepts(ranking)}.",
            "",
            *_ranking_section(ranking),
            "",
            *_explanations_section(explanations),
            "",
        ]
    )


def _concepts(ranking: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(r["concept"] for r in ranking if "/" not in r["concept"]))


def _ranking_section(ranking: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Candidates",
        "",
        "By mean rank over concepts: each orders the SAEs by how many distinct features separate "
        "it, equal numbers by best separation.",
        "",
        "| SAE | hook point | L0 | FVU | separating features | best separation | mean rank |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    found = Ranking(ranking, {})
    lines += [
        f"| {line.sae} | {line.hook_point} | {line.l0:.1f} | {line.fvu:.3f} | {line.separating} "
        f"| {line.separation:.2f} | {line.mean_rank:.1f} |"
        for line in found.candidate_lines()
    ]
    return lines + [f"\nNot ranked: {name}: {why}" for name, why in found.refused().items()]


def _explanations_section(rows: list[dict[str, Any]]) -> list[str]:
    explainers = dict.fromkeys(map(explained_by, rows))
    scored = [row for row in rows if row["status"] == "scored"]
    statuses = Counter(row["status"] for row in rows)
    lines = [
        "## Features",
        "",
        f"Explained by {', '.join(explainers)}. Rows: "
        + ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        + ".",
        "",
        "Correlation: Pearson between simulated and true activation on held-out windows, with its "
        "95 % interval. Discrimination: AUROC, active against silent windows.",
        "",
        "| feature | concepts | correlation | discrimination | explanation |",
        "| ---: | --- | --- | --- | --- |",
    ]
    best = sorted(scored, key=lambda row: -row["correlation"])
    return lines + [
        f"| {row['feature']} | {', '.join(row['concepts'])} "
        f"| {_interval(row, 'correlation')} | {_interval(row, 'discrimination')} "
        f"| {markdown_text(row['explanation'])} |"
        for row in best[:_FEATURES_SHOWN]
    ]


def _interval(row: dict[str, Any], column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.2f} [{low:.2f}, {high:.2f}]"
