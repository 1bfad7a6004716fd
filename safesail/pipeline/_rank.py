"""The stage `rank` on a study's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safesail.errors import CandidateError
from safesail.pipeline._selection import Selection
from safesail.pipeline._workspace import Approve, Progress, Workspace, no_progress, rows_of
from safesail.study import Study
from safesail.tables import FEATURES, RANKINGS, table_from_rows, write_bytes, write_table

if TYPE_CHECKING:
    from safesail.ranking import Ranking
    from safesail.sparse_autoencoder import SaeFilter


def rank(
    study: Study,
    selection: Selection | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
    approve: Approve | None = None,
) -> Ranking:
    """Rank the study's candidates by how finely they separate its concepts.

    Writes `rankings.parquet`, `features/<sae>.parquet` (both after every candidate) and
    `ranking.png`.

    Args:
        study: the study.
        selection: a layer and `candidates` restrict what is ranked now; what was ranked before
            stays in the table. Of `candidates`, the result holds those alone, ranked among
            themselves.
        overwrite: discard results that other settings made, instead of refusing to go on.
        progress: wraps an iterable with a label.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.

    Raises:
        SafesailError: see `safesail.errors`; what was ranked before the error is kept.
    """
    workspace = Workspace(study, overwrite, progress, approve)
    return rank_in(workspace, selection or Selection())


def rank_in(workspace: Workspace, selection: Selection) -> Ranking:
    """The stage, for stages that come after it in the same command."""
    from safesail.ranking import REFUSED, Ranking, compare, plot_ranking, score_candidates

    study, concepts = workspace.study, workspace.concepts
    concepts.select(selection.concepts)
    settings = workspace.ranking_settings()
    fingerprints = {c.name: c.fingerprint() for c in workspace.candidates}
    if selection.sae is not None and selection.sae not in fingerprints:
        raise CandidateError(
            f"no candidate {selection.sae!r} in this study; there are {', '.join(fingerprints)}"
        )
    # What a published SAE was refused for may have been the network: it is tried again.
    published = {c.name for c in workspace.candidates if c.folder is None}
    rows = [
        row
        for row in workspace.rows_to_keep(study.rankings, RANKINGS, settings)
        if fingerprints.get(row["sae"]) == row["source_fingerprint"]
        and not (row["sae"] in published and row["health"].startswith(REFUSED))
    ]
    # Of a ranked candidate whose features are lost nothing could be collected.
    rows = [r for r in rows if r["health"] != "ok" or study.features(r["sae"]).exists()]
    done = {row["sae"] for row in rows}
    waiting = [
        candidate
        for candidate in workspace.candidates
        if candidate.name not in done
        and (selection.layer is None or candidate.layer in (None, selection.layer))
        and selection.sae in (None, candidate.name)
        and candidate.fits(selection.candidates)
    ]

    def save() -> None:
        write_table(study.rankings, table_from_rows(rows, RANKINGS), RANKINGS, settings)

    if not rows and not waiting:
        layers = sorted({c.layer for c in workspace.candidates if c.layer is not None})
        asked = selection.candidates or f"layer {selection.layer}"
        raise CandidateError(
            f"no candidate of this study has {asked}; they are at layers: "
            f"{', '.join(map(str, layers))}"
        )
    if waiting:
        workspace.ask_to_download(waiting)
        for scored in score_candidates(
            workspace.model,
            waiting,
            concepts,
            workspace.corpus,
            workspace.settings.ranking,
            progress=workspace.progress,
        ):
            name = scored.rows[0]["sae"]
            # Features first: a candidate counts as ranked once its rows are in the rankings.
            table = table_from_rows(scored.features, FEATURES)
            write_table(study.features(name), table, FEATURES, settings)
            rows += [{**row, "source_fingerprint": fingerprints[name]} for row in scored.rows]
            save()
    compare(rows)
    features = {name: rows_of(study.features(name), FEATURES) for name in fingerprints}
    ranking = Ranking(rows, {name: found for name, found in features.items() if found})
    place = {name: number for number, name in enumerate(ranking.order())}
    rows.sort(key=lambda row: place.get(row["sae"], len(place)))
    if waiting:
        save()
        picture = plot_ranking(rows, concepts.top_level)
        write_bytes(study.folder / "ranking.png", picture)
    if selection.candidates:
        return _restricted(ranking, workspace, selection.candidates)
    if selection.layer is not None:
        ranking.best(selection.layer)  # says so where none of that layer could be ranked
    return ranking


def _restricted(ranking: Ranking, workspace: Workspace, wanted: SaeFilter) -> Ranking:
    """The part of a ranking that meets the conditions."""
    stated = {candidate.name: candidate for candidate in workspace.candidates}
    # Loaded, an SAE says its layer and width; of its L0, what its makers state is asked for.
    rows = [
        row
        for row in ranking.rows
        if wanted.admits(
            names=(row["sae"], row["source"]),
            layer=stated[row["sae"]].layer if row["layer"] is None else row["layer"],
            width=stated[row["sae"]].width if row["width"] is None else row["width"],
            l0=stated[row["sae"]].l0,
            unknown=stated[row["sae"]].entry is None,
        )
    ]
    if all(row["health"] != "ok" for row in rows):
        reasons = "; ".join(sorted({f"{row['sae']}: {row['health']}" for row in rows}))
        raise CandidateError(
            f"no candidate with {wanted} could be ranked" + (f": {reasons}" if reasons else "")
        )
    return ranking.among({row["sae"] for row in rows})
