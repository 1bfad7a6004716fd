"""Stages on a study's files: what is kept, what is made again, what a crash leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_folder import SAES, change_setting, contents, statuses, with_contexts

from safesail.errors import CandidateError, InputError, StudyConflictError
from safesail.pipeline import Selection, collect, explain, load_feature, load_results, rank
from safesail.study import Study

Copy = Callable[[Path], Path]


def forbid_work(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Fail where a stage would compute."""

    def fail(*given: Any, **named: Any) -> None:
        raise AssertionError("nothing was to be computed")

    for name in names or ("ranking.score_candidates", "contexts.collect_contexts"):
        monkeypatch.setattr(f"safesail.{name}", fail)


def test_one_command_runs_every_stage(explained: Path) -> None:
    study = Study.open(explained)
    ranking = rank(study)
    best = ranking.best()
    explanations = load_results(study, "explanations").to_pylist()
    assert {row["sae"] for row in explanations} == {best}
    chosen = {row["feature"] for row in ranking.features[best]}
    assert {row["feature"] for row in explanations} == chosen == set(statuses(explained, best))
    assert "scored" in {row["status"] for row in explanations}
    assert set(statuses(explained, best).values()) <= {"collected", "too_few_contexts", "dead"}
    for row in explanations:
        assert row["concepts"][0] in ranking.to_pandas()["concept"].tolist()
        assert (row["explainer"], row["judge_model"]) == ("lexical", None)
    rows = load_results(study, "rankings").to_pylist()
    assert len(rows) == 3 * 4
    assert load_results(study, "features").num_rows == sum(map(len, ranking.features.values()))
    summary = (explained / "summary.md").read_text(encoding="utf-8")
    assert f"Explained SAE: `{best}`" in summary
    assert (explained / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_computes_and_changes_nothing(
    explained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(explained)
    assert len(before) > 6
    forbid_work(monkeypatch)
    forbid_work(monkeypatch, "explaining.explain_features")
    found = explain(Study.open(explained))
    names = {name for name in before if not name.startswith("explanations")}
    after = contents(explained)
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    (explanation,) = (name for name in before if name.startswith("explanations"))
    assert after[explanation][1] == before[explanation][1]
    assert len(found.rows) == load_results(Study.open(explained), "explanations").num_rows


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("margin = 0.25", "margin = 0.5", r"rankings\.parquet.*ranking\.margin was 0\.25, is 0\.5"),
        ("sample_tokens = 1000", "sample_tokens = 1100", "sample_tokens was 1000, is 1100"),
        ("top = 3", "top = 4", r"part-00000\.parquet.*collection\.top was 3, is 4"),
        ("max_tokens = 4000", "max_tokens = 3000", r"corpus\.max_tokens was 4000, is 3000"),
    ],
)
def test_a_changed_setting_is_named_and_overwrite_goes_on(
    explained: Path, copy: Copy, old: str, new: str, named: str
) -> None:
    folder = copy(explained)
    change_setting(folder, old, new)
    before = contents(folder)
    with pytest.raises(StudyConflictError, match=named):
        explain(Study.open(folder))
    assert contents(folder) == before
    found = explain(Study.open(folder), overwrite=True)
    assert contents(folder) != before
    assert found.rows
    again = contents(folder)
    explain(Study.open(folder))
    assert {n: b for n, (_, b) in contents(folder).items()} == {n: b for n, (_, b) in again.items()}


def test_changed_inputs_are_noticed(explained: Path, copy: Copy) -> None:
    folder = copy(explained)
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"text": "one more"}\n' + corpus.read_text())
    with pytest.raises(StudyConflictError, match=r"corpus was .*corpus\.jsonl"):
        rank(Study.open(folder))
    shutil.copy(explained / "corpus.jsonl", corpus)
    rank(Study.open(folder))
    concepts = folder / "concepts.jsonl"
    concepts.write_text(concepts.read_text().split("\n", 1)[1])
    with pytest.raises(StudyConflictError, match="concepts was"):
        rank(Study.open(folder))


def test_selections_add_up(fresh: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(fresh)
    study = Study.open(folder)
    first = explain(study, Selection(concepts=("fraud",), limit=3))
    features = [row["feature"] for row in first.rows]
    assert len(features) == 3
    assert all("fraud" in row["concepts"] for row in first.rows)
    assert with_contexts(folder, first.sae) == sorted(features)
    ranked = [
        row["feature"] for row in rank(study).features[first.sae] if row["concept"] == "fraud"
    ]
    assert features == ranked[:3]
    before = contents(folder)
    more = Selection(sae=first.sae, concepts=("fraud", "violence"), limit=8)
    second = explain(study, more)
    assert set(features) < {row["feature"] for row in second.rows}
    assert len(second.rows) == 8
    shard = f"contexts/{first.sae}/part-00000.parquet"
    assert contents(folder)[shard] == before[shard]
    added = set(contents(folder)) - set(before)
    assert added == {f"contexts/{first.sae}/part-00001.parquet"}
    kept = {row["feature"]: row for row in second.rows}
    for row in first.rows:
        assert kept[row["feature"]] == row
    # What has been asked for before is not collected again.
    forbid_work(monkeypatch)
    assert [row["feature"] for row in explain(study, more).rows] == [
        row["feature"] for row in second.rows
    ]
    assert len(load_results(study, "explanations").to_pylist()) == 8


def test_layers_restrict_and_the_numbers_do_not_depend_on_the_company(
    explained: Path, fresh: Path, copy: Copy
) -> None:
    folder = copy(fresh)
    study = Study.open(folder)
    found = explain(study, Selection(layer=2, limit=2))
    assert (found.sae, found.layer) == ("upper", 2)
    assert {row["sae"] for row in load_results(study, "rankings").to_pylist()} == {"upper"}
    rank(study)
    alone = {(r["sae"], r["concept"]): r for r in load_results(study, "rankings").to_pylist()}
    together = load_results(Study.open(explained), "rankings").to_pylist()
    assert len(alone) == len(together)
    for row in together:
        other = alone[row["sae"], row["concept"]]
        assert row["rank"] == other["rank"]
        for name in ("l0", "fvu", "i_cdf", "separation_best", "separation_best_low"):
            assert row[name] == pytest.approx(other[name], rel=1e-5, nan_ok=True)


def test_a_layer_without_candidates_is_named(fresh: Path, explained: Path, copy: Copy) -> None:
    for study in (fresh, explained):
        with pytest.raises(CandidateError, match=r"no .*candidate .*layer 7; .* at.*: 1, 2"):
            rank(Study.open(study), Selection(layer=7))


def test_what_is_asked_wrongly_is_named(explained: Path) -> None:
    study = Study.open(explained)
    with pytest.raises(InputError, match="concept 'theft' has no pairs in this study"):
        explain(study, Selection(concepts=("theft",)))
    with pytest.raises(CandidateError, match="no candidate 'none' in this study; there are first"):
        collect(study, Selection(sae="none"))
    with pytest.raises(InputError, match=r"feature 999 was not chosen in .*; chosen ones: \d"):
        load_feature(study, 999)
    with pytest.raises(InputError, match=r"no explanations of SAE 'none' in .*safesail explain"):
        load_results(study, "explanations", "none")


def test_features_of_several_saes_are_not_mixed(explained: Path, copy: Copy) -> None:
    folder = copy(explained)
    shutil.rmtree(folder / "contexts")
    by_sae = {sae: set(statuses(folder, sae)) for sae in SAES}
    shared = next(iter((by_sae["first"] & by_sae["second"]) | (by_sae["second"] & by_sae["upper"])))
    with pytest.raises(InputError, match=f"feature {shared} was chosen in several SAEs: .*--sae"):
        load_feature(Study.open(folder), shared)
    named = next(sae for sae in SAES if shared in by_sae[sae])
    assert {row["sae"] for row in load_feature(Study.open(folder), shared, named).rows} == {named}
