"""What a whole study holds, counted once: concepts, SAEs, ranking, cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safesail.explorer._catalog import Catalog
from safesail.explorer._drawing import Plot, ranking_plot

PALETTE = 9
"""Colours for concepts; further ones begin again, and are told apart by their names."""


@dataclass(frozen=True)
class ConceptSummary:
    """A concept: how many features, and its best one.

    Attributes:
        name: its name.
        colour: number of its colour; children have their parent's.
        features: features of it, its children's included.
        explained: those with an explanation.
        scored: those with a score.
        best: the one with the largest discrimination; None where none is scored.
    """

    name: str
    colour: int
    features: int
    explained: int
    scored: int
    best: dict[str, Any] | None


@dataclass(frozen=True)
class Cost:
    """What an explainer took for an SAE, and what became of the features.

    Attributes:
        sae: name of the SAE.
        explainer: the judge's model, the source of an import, or `lexical`.
        language: of the explanations.
        statuses: number of rows by status, most frequent first.
        calls: requests sent.
        prompt_tokens: tokens of prompts.
        completion_tokens: tokens of answers.
        dollars: US dollars by the price list; None without a price.
        errors: why rows have no score, each once with its number, most frequent first.
    """

    sae: str
    explainer: str
    language: str
    statuses: dict[str, int]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    errors: dict[str, int]


class Overview:
    """Counts and rankings of a study.

    Attributes:
        concepts: every concept that has features or a ranking, parents before their children.
        saes: SAEs with features or explanations, with their layer and counts.
        layers: layers of those SAEs, with counts.
        statuses: every status with its count.
        costs: by SAE, explainer and language.
        ranked_rows: rows of the rankings table without resamples, by SAE and concept.
    """

    def __init__(self, catalog: Catalog) -> None:
        rankings = catalog.rows("SELECT * FROM rankings")
        self._rankings = rankings
        self.ranked_rows = {(r["sae"], r["concept"]): _without_resamples(r) for r in rankings}
        self.concepts = _concepts(catalog, [row["concept"] for row in rankings])
        self.saes = catalog.rows(
            "SELECT sae, any_value(layer) AS layer, count(*) AS features, "
            "count(explanation) AS explained, count(*) FILTER (status = 'scored') AS scored "
            "FROM catalog GROUP BY sae ORDER BY layer, sae"
        )
        self.layers = catalog.rows(
            "SELECT layer, count(*) AS features, count(*) FILTER (status = 'scored') AS scored "
            "FROM catalog GROUP BY layer ORDER BY layer"
        )
        self.statuses = catalog.rows(
            "SELECT status, count(*) AS features FROM catalog "
            "GROUP BY status ORDER BY features DESC, status"
        )
        self.costs = _costs(catalog)
        self._colours = {concept.name: concept.colour for concept in self.concepts}

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The ranking, best SAE first, one line each over all top-level concepts."""
        if not self._rankings:
            return []
        # Here, for ranking brings torch, which few pages need.
        from safesail.ranking import Ranking

        of = {row["sae"]: row for row in self._rankings}
        return [
            {**vars(line), "layer": of[line.sae]["layer"], "series": _series(of[line.sae])}
            for line in Ranking(self._rankings, {}).candidate_lines()
        ]

    @property
    def refused(self) -> dict[str, str]:
        """SAEs that could not be ranked, and why."""
        return {row["sae"]: row["health"] for row in self._rankings if row["health"] != "ok"}

    def colour(self, concept: str) -> int:
        """Number of a concept's colour."""
        known = self._colours.get(concept, self._colours.get(concept.split("/")[0]))
        return PALETTE - 1 if known is None else known

    def concept(self, name: str) -> ConceptSummary | None:
        """A concept by its name."""
        return next((concept for concept in self.concepts if concept.name == name), None)

    def children(self, concept: ConceptSummary) -> list[ConceptSummary]:
        """The concepts below one."""
        return [child for child in self.concepts if child.name.startswith(f"{concept.name}/")]

    def ranking_of(self, concept: str) -> list[dict[str, Any]]:
        """Rows of the rankings table of one concept, best SAE first."""
        rows = [row for (_, of), row in self.ranked_rows.items() if of == concept and row["rank"]]
        return sorted(rows, key=lambda row: row["rank"])

    def plot(self, concept: str | None = None) -> Plot | None:
        """Separating features against L0: of one concept, or of all together."""
        if concept is None:
            return ranking_plot(
                [
                    {
                        "sae": line["sae"],
                        "series": line["series"],
                        "l0": line["l0"],
                        "value": line["separating"],
                        "low": line["separating_low"],
                        "high": line["separating_high"],
                    }
                    for line in self.lines
                ]
            )
        name = "separating_features"
        return ranking_plot(
            [
                {
                    "sae": row["sae"],
                    "series": _series(row),
                    "l0": row["l0"],
                    "value": row[name],
                    "low": row[f"{name}_low"],
                    "high": row[f"{name}_high"],
                }
                for row in self.ranking_of(concept)
                if row[name] is not None
            ]
        )


def _series(row: dict[str, Any]) -> str:
    return f"{row['hook_point']} {row['architecture']}"


def _without_resamples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("_resamples")}


def _concepts(catalog: Catalog, ranked: list[str]) -> list[ConceptSummary]:
    # A parent has its children's features too, each once.
    counts = catalog.rows(
        """
        WITH branch AS (
          SELECT DISTINCT id, array_to_string(string_split(concept, '/')[:depth], '/') AS concept
          FROM of_concept, range(1, 9) AS levels(depth)
          WHERE depth <= len(string_split(concept, '/'))
        )
        SELECT b.concept, count(*) AS features, count(c.explanation) AS explained,
          count(*) FILTER (c.status = 'scored') AS scored,
          arg_max(c.id, c.discrimination)
            FILTER (c.discrimination IS NOT NULL AND NOT isnan(c.discrimination)) AS best
        FROM branch AS b JOIN catalog AS c USING (id) GROUP BY b.concept
        """
    )
    found = {row["concept"]: row for row in counts}
    names = list(dict.fromkeys([*ranked, *sorted(found)]))
    top = list(dict.fromkeys(name.split("/")[0] for name in names))
    best = {row["best"] for row in counts if row["best"] is not None}
    rows = catalog.rows(
        "SELECT * FROM catalog WHERE id IN (SELECT unnest($best))", {"best": sorted(best)}
    )
    by_id = {row["id"]: row for row in rows}
    names.sort(key=lambda name: (top.index(name.split("/")[0]), name.count("/"), name))
    return [
        ConceptSummary(
            name=name,
            colour=top.index(name.split("/")[0]) % PALETTE,
            features=found[name]["features"] if name in found else 0,
            explained=found[name]["explained"] if name in found else 0,
            scored=found[name]["scored"] if name in found else 0,
            best=by_id.get(found[name]["best"]) if name in found else None,
        )
        for name in names
    ]


def _costs(catalog: Catalog) -> list[Cost]:
    key = "sae, coalesce(source, judge_model, explainer) AS explainer, language"
    totals = catalog.rows(
        f"SELECT {key}, sum(calls)::BIGINT AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens, "
        "sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS dollars "
        "FROM explanations GROUP BY ALL ORDER BY ALL"
    )
    statuses: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    errors: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for column, into in (("status", statuses), ("error", errors)):
        for row in catalog.rows(
            f"SELECT {key}, {column} AS value, count(*) AS rows FROM explanations "
            f"WHERE {column} IS NOT NULL GROUP BY ALL ORDER BY rows DESC, value"
        ):
            into[row["sae"], row["explainer"], row["language"]][row["value"]] = row["rows"]
    return [
        Cost(
            **row,
            statuses=statuses[row["sae"], row["explainer"], row["language"]],
            errors=errors[row["sae"], row["explainer"], row["language"]],
        )
        for row in totals
    ]
