"""The result of the stage `rank`, and what a reader asks of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safesail.errors import CandidateError
from safesail.ranking._compare import compare
from safesail.ranking._plot import curves
from safesail.ranking._score import NONE_CALLED_WARNING, is_of_concept
from safesail.ranking._summary import CandidateLine, ConceptLine, candidate_lines, concept_line
from safesail.tables import RANKINGS, table_from_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Ranking:
    """Result of the stage `rank`.

    Attributes:
        rows: one per candidate and concept, as in the rankings table, best candidate first.
        features: by candidate, rows as in the features table.
    """

    rows: list[dict[str, Any]]
    features: dict[str, list[dict[str, Any]]]

    def order(self, by: Sequence[str] = ()) -> list[str]:
        """Candidates that could be ranked, best first.

        Args:
            by: concepts whose mean rank orders; none means all top-level ones.
        """
        means: dict[str, float] = {}
        for row in self.rows:
            if row["mean_rank"] is not None:
                means[row["sae"]] = row["mean_rank"]
        if by:
            for name in means:
                ranks = [r["rank"] for r in self.rows if r["sae"] == name and r["concept"] in by]
                means[name] = float(np.mean([rank or len(means) for rank in ranks]))
        separation = {name: self._mean_separation(name, by) for name in means}
        return sorted(means, key=lambda name: (means[name], -separation[name], name))

    def _mean_separation(self, name: str, by: Sequence[str]) -> float:
        values = [
            row["separation_best"]
            for row in self.rows
            if row["sae"] == name and (row["concept"] in by if by else "/" not in row["concept"])
        ]
        finite = [value for value in values if value is not None and np.isfinite(value)]
        return float(np.mean(finite)) if finite else 0.0

    def best(self, layer: int | None = None, by: Sequence[str] = ()) -> str:
        """The best candidate, of all or of one layer.

        Raises:
            CandidateError: none there.
        """
        layers = {row["sae"]: row["layer"] for row in self.rows}
        order = self.order(by)
        for name in order:
            if layer is None or layers[name] == layer:
                return name
        known = ", ".join(map(str, sorted({layers[name] for name in order}))) or "none"
        raise CandidateError(f"no ranked candidate at layer {layer}; there are some at: {known}")

    def among(self, names: Collection[str]) -> Ranking:
        """The ranking of some candidates: places, ties and probabilities are among them alone.

        Raises:
            CandidateError: none of them could be ranked.
        """
        rows = [dict(row) for row in self.rows if row["sae"] in names]
        compare(rows)
        found = Ranking(rows, {n: of for n, of in self.features.items() if n in names})
        place = {name: number for number, name in enumerate(found.order())}
        rows.sort(key=lambda row: place.get(row["sae"], len(place)))
        return found

    def candidate_lines(self, by: Sequence[str] = ()) -> list[CandidateLine]:
        """One line per ranked candidate, best first, over top-level concepts or those of `by`."""
        rows = [
            row
            for row in self.rows
            if row["mean_rank"] is not None
            and (row["concept"] in by if by else "/" not in row["concept"])
        ]
        return candidate_lines([[r for r in rows if r["sae"] == name] for name in self.order(by)])

    def concept_lines(self) -> list[ConceptLine]:
        """One line per concept that candidates could be ranked on."""
        concepts = dict.fromkeys(row["concept"] for row in self.rows)
        lines = [concept_line([r for r in self.rows if r["concept"] == c]) for c in concepts]
        return [line for line in lines if line is not None]

    def refused(self) -> dict[str, str]:
        """Candidates that could not be ranked, and why."""
        return {row["sae"]: row["health"] for row in self.rows if row["health"] != "ok"}

    def warnings(self) -> list[str]:
        """What a reader should know before trusting the numbers, each once with what it is of."""
        found: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for warning in row["warnings"] or []:
                if warning == NONE_CALLED_WARNING and row["rank"] != 1:
                    continue  # of a concept's best SAE alone is it news
                of_concept = warning == NONE_CALLED_WARNING or is_of_concept(warning)
                of = row["concept"] if of_concept else row["sae"]
                found.setdefault(warning, {})[of] = None
        return [f"{', '.join(of)}: {warning}" for warning, of in found.items()]

    def to_json(self, by: Sequence[str] = ()) -> dict[str, Any]:
        """For machines: `candidates` and `concepts` as the tables show them, the `picture`'s
        curves, and all `rows` but for their resamples.
        """
        return {
            "candidates": [asdict(line) for line in self.candidate_lines(by)],
            "concepts": [asdict(line) for line in self.concept_lines()],
            "picture": curves(self.rows),
            "rows": [
                {key: value for key, value in row.items() if not key.endswith("_resamples")}
                for row in self.rows
            ],
        }

    def to_pandas(self) -> pd.DataFrame:
        """The rankings table."""
        return table_from_rows(self.rows, RANKINGS).to_pandas()
