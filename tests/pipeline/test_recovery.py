"""What goes wrong in the middle: refused candidates, stops, crashes, lost and damaged files."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_folder import SAES, change_setting, statuses, with_contexts

from safesail.errors import CandidateError, StorageError
from safesail.pipeline import Selection, collect, load_results, rank
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder
from safesail.study import Study

Copy = Callable[[Path], Path]


def test_a_stop_between_candidates_keeps_what_was_ranked(
    explained: Path, fresh: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safesail import ranking as stage

    folder = copy(fresh)
    whole = stage.score_candidates

    def interrupted(*given: Any, **named: Any) -> Any:
        for number, scored in enumerate(whole(*given, **named)):
            if number == 2:
                raise KeyboardInterrupt
            yield scored

    with monkeypatch.context() as patch:
        patch.setattr(stage, "score_candidates", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rank(Study.open(folder))
    kept = {row["sae"] for row in load_results(Study.open(folder), "rankings").to_pylist()}
    assert len(kept) == 2
    remaining: list[str] = []

    def watched(model: Any, candidates: Any, *given: Any, **named: Any) -> Any:
        remaining.extend(candidate.name for candidate in candidates)
        return whole(model, candidates, *given, **named)

    monkeypatch.setattr(stage, "score_candidates", watched)
    again = rank(Study.open(folder))
    assert set(remaining) == set(SAES) - kept
    columns = ["sae", "concept", "rank", "separation_best", "i_cdf"]
    first = again.to_pandas()[columns].sort_values(["sae", "concept"])
    second = rank(Study.open(explained)).to_pandas()[columns].sort_values(["sae", "concept"])
    assert first["rank"].tolist() == second["rank"].tolist()
    np.testing.assert_allclose(first["separation_best"], second["separation_best"], rtol=1e-5)


def test_a_crash_between_contexts_and_statistics_heals(fresh: Path, copy: Copy) -> None:
    folder = copy(fresh)
    study = Study.open(folder)
    (first,) = collect(study, Selection(limit=2))
    table = folder / "features" / f"{first.sae}.parquet"
    before = table.read_bytes()
    collect(study, Selection(limit=5))
    table.write_bytes(before)  # as if stopped after the shard was written
    (found,) = collect(study, Selection(limit=5))
    assert with_contexts(folder, first.sae) == sorted(found.features)
    rows = load_results(study, "contexts").to_pylist()
    keys = [(r["feature"], r["document"], r["start"], r["sample"]) for r in rows]
    assert len(set(keys)) == len(keys)
    healed = statuses(folder, first.sae)
    assert all(healed[feature] != "chosen" for feature in found.features)


@pytest.mark.parametrize("settings_change", [True, False])
def test_lost_contexts_are_collected_again(
    explained: Path, copy: Copy, settings_change: bool
) -> None:
    """Whether a user deleted them, or a run that was to overwrite them was stopped."""
    folder = copy(explained)
    (sae,) = (path.name for path in (folder / "contexts").iterdir())
    everything = with_contexts(folder, sae)
    assert len(everything) > 2
    if settings_change:
        change_setting(folder, "top = 3", "top = 4")
    shutil.rmtree(folder / "contexts")
    study = Study.open(folder)
    collect(study, Selection(limit=1), overwrite=True)
    assert len(with_contexts(folder, sae)) == 1
    assert Counter(statuses(folder, sae).values())["chosen"] == len(statuses(folder, sae)) - 1
    collect(study)
    assert with_contexts(folder, sae) == everything


def test_a_damaged_result_is_named_not_ignored(explained: Path, copy: Copy) -> None:
    folder = copy(explained)
    path = folder / "rankings.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"cannot read .*rankings\.parquet"):
        rank(Study.open(folder))


def test_a_refused_candidate_is_named_and_the_others_are_ranked(fresh: Path, copy: Copy) -> None:
    folder = copy(fresh)
    weights = folder / "saes" / "second" / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    study = Study.open(folder)
    ranking = rank(study)
    assert set(ranking.order()) == {"first", "upper"}
    assert "second" in ranking.refused()["second"]
    assert set(ranking.features) == {"first", "upper"}
    rows = load_results(study, "rankings").to_pylist()
    assert {row["health"][:7] for row in rows if row["sae"] == "second"} == {"refused"}
    weights.write_bytes(whole)
    assert set(rank(study).order()) == set(SAES)
    assert not rank(study).refused()


def test_an_unreachable_published_candidate_is_tried_again(
    fresh: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(fresh)
    change_setting(folder, '"saes/*"', '"saes/first", "nobody/nothing:layer_1"')
    study = Study.open(folder)
    load, tried = SparseAutoencoder.load, []

    def without_network(candidate: Candidate, *, device: str) -> SparseAutoencoder:
        tried.append(candidate.name)
        if candidate.folder is None:
            raise CandidateError("no network")
        return load(candidate, device=device)

    monkeypatch.setattr(SparseAutoencoder, "load", without_network)
    assert rank(study).refused() == {"nobody-nothing-layer_1": "refused: no network"}
    assert rank(study).refused() == {"nobody-nothing-layer_1": "refused: no network"}
    assert tried == ["first", "nobody-nothing-layer_1", "nobody-nothing-layer_1"]
    assert load_results(study, "rankings").num_rows == 2 * 4
