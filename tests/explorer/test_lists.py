"""Lists of features against the same filters in pandas, and query strings of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_study import BEST_FRAUD, FEATURES_OF

from safesail.explorer import Explorer
from safesail.explorer._listing import PAGE_SIZE, SORTS, Query
from safesail.study import Study
from safesail.tables import (
    EXPLANATIONS,
    FEATURES,
    TableSchema,
    read_table,
    table_from_rows,
    write_table,
)

TOTAL = sum(FEATURES_OF.values())
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_WORDS = _TEXT.map(lambda text: " ".join(text.split()))
QUERIES = st.builds(
    Query,
    q=_WORDS,
    concept=_TEXT,
    sae=_TEXT,
    layer=st.none() | st.integers(0, 99),
    status=_TEXT,
    low=st.none() | st.sampled_from([0.0, 0.25, 0.5]),
    high=st.none() | st.sampled_from([0.75, 1.0]),
    features=st.lists(st.integers(0, 99), max_size=5).map(tuple),
    sort=st.sampled_from(["", "match", *SORTS]),
    descending=st.booleans(),
    page=st.integers(1, 10**6),
)


@pytest.fixture(scope="module")
def explorer(made_up: Study) -> Explorer:
    return Explorer(made_up)


@pytest.fixture(scope="module")
def table(made_up: Study) -> pd.DataFrame:
    """The judge's English rows, which are the best of each feature where they have a text."""
    frames = []
    for sae in FEATURES_OF:
        rows = pd.read_parquet(made_up.explanations(sae))
        rows["place"] = rows["explanation"].isna() * 4 + (rows["explainer"] != "judge") * 2
        rows["place"] += rows["language"] != "en"
        frames.append(rows.sort_values("place").drop_duplicates("feature"))
    return pd.concat(frames).reset_index(drop=True)


def pages(explorer: Explorer, query: Query) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    first = explorer.features(query)
    rows = list(first.rows)
    for page in range(2, first.pages + 1):
        rows += explorer.features(query.with_changes(page=page)).rows
    assert len(rows) == first.total
    return rows


@given(QUERIES)
def test_a_list_comes_back_from_its_address(query: Query) -> None:
    assert Query.from_parameters(dict(parse_qsl(query.to_parameters()))) == query


@given(st.dictionaries(st.sampled_from([*Query.__dataclass_fields__, "order"]), st.text()))
def test_no_parameters_are_refused(explorer: Explorer, given: dict[str, str]) -> None:
    found = explorer.features(Query.from_parameters(given))
    assert len(found.rows) <= PAGE_SIZE


def test_every_feature_once_best_first(explorer: Explorer, table: pd.DataFrame) -> None:
    rows = pages(explorer, Query())
    assert len(rows) == TOTAL > PAGE_SIZE
    expected = table.sort_values(
        ["discrimination", "sae", "feature"], ascending=[False, True, True]
    )
    found = [(row["sae"], row["feature"]) for row in rows]
    assert found == list(zip(expected["sae"], expected["feature"], strict=True))
    assert found[0] == ("first", BEST_FRAUD)


@pytest.mark.parametrize("column", ["correlation", "discrimination_low", "feature", "status"])
@pytest.mark.parametrize("descending", [True, False])
def test_sorting(explorer: Explorer, table: pd.DataFrame, column: str, descending: bool) -> None:
    rows = pages(explorer, Query(sort=column, descending=descending))
    expected = table.sort_values(column, ascending=not descending)[column]
    assert [row[column] for row in rows if row[column] is not None] == expected.dropna().tolist()


def test_filters(explorer: Explorer, table: pd.DataFrame) -> None:
    query = Query(sae="first", low=0.6, high=0.8, status="scored")
    expected = table[
        (table["sae"] == "first")
        & table["discrimination"].between(0.6, 0.8)
        & (table["status"] == "scored")
    ]
    assert {row["feature"] for row in pages(explorer, query)} == set(expected["feature"])
    assert {row["sae"] for row in pages(explorer, Query(layer=2))} == {"second"}
    chosen = pages(explorer, Query(sae="first", features=(3, 5, 10**9)))
    assert {row["feature"] for row in chosen} == {3, 5}


def test_a_concept_holds_its_children(explorer: Explorer) -> None:
    violence = {(r["sae"], r["feature"]) for r in pages(explorer, Query(concept="violence"))}
    insult = {(r["sae"], r["feature"]) for r in pages(explorer, Query(concept="violence/insult"))}
    assert insult < violence
    summary = explorer.overview.concept("violence")
    assert summary is not None
    assert summary.features == len(violence)
    fraud = explorer.overview.concept("fraud")
    assert fraud is not None
    assert fraud.best is not None
    assert (fraud.best["sae"], fraud.best["feature"]) == ("first", BEST_FRAUD)


def test_refused_by_the_judge_the_lexical_explanation_is_the_best(explorer: Explorer) -> None:
    (row,) = explorer.features(Query(sae="first", features=(5,))).rows
    assert (row["explainer"], row["status"]) == ("lexical", "scored")
    # Lexical features belong to what they were called for; this was called for its concept.
    assert row["concepts"] == ["fraud"]
    (uncalled,) = explorer.features(Query(sae="first", features=(9,))).rows
    assert uncalled["concepts"] == ["violence"]  # the judge's word, though it was not called


def test_what_no_concept_chose_belongs_to_what_its_file_says(own: Study) -> None:
    def change(path: Path, schema: TableSchema, **values: object) -> None:
        rows = read_table(path, schema).to_pylist()
        changed = [row | values if row["feature"] == 3 else row for row in rows]
        write_table(path, table_from_rows(changed, schema), schema, {})

    change(own.explanations("first"), EXPLANATIONS, explainer="imported", judge_concepts=None)
    ranked = ("f", "f_low", "f_high", "called", "separation", "specificity")
    change(own.features("first"), FEATURES, concept=None, **dict.fromkeys(ranked))
    (row,) = Explorer(own).features(Query(sae="first", features=(3,))).rows
    assert row["concepts"] == ["violence"]


@pytest.mark.parametrize("query", [Query(), Query(concept="fraud", sort="feature"), Query(page=2)])
def test_neighbours_are_those_of_the_list(explorer: Explorer, query: Query) -> None:
    rows = pages(explorer, query.with_changes())
    for place in (0, 1, len(rows) - 1):
        near = explorer.neighbours(query, rows[place]["id"])
        assert (near.place, near.total) == (place + 1, len(rows))
        for found, index in ((near.before, place - 1), (near.after, place + 1)):
            expected = rows[index] if 0 <= index < len(rows) else None
            named = expected and {"sae": expected["sae"], "feature": expected["feature"]}
            assert found == named


def test_a_feature_with_all_that_is_known_of_it(explorer: Explorer) -> None:
    view = explorer.feature("first", 3)
    assert view is not None
    assert {row["language"] for row in view.explanations} == {"en", "zh"}
    assert sum(group.total for group in view.groups) == 24
    assert [row["feature"] for row in view.nearest] == [4]  # 999 has no page
    assert explorer.feature("first", 10**6) is None
    assert explorer.feature("../first", 3) is None


def test_changed_files_are_seen(own: Study) -> None:
    explorer = Explorer(own)
    assert explorer.features(Query()).total == TOTAL
    own.explanations("second").unlink()
    own.features("second").unlink()
    explorer._looked = 0.0  # a second later
    assert explorer.features(Query()).total == FEATURES_OF["first"]


def test_results_of_other_settings_are_pointed_out(own: Study) -> None:
    assert Explorer(own).catalog.warnings == []
    path = own.explanations("second")
    table = table_from_rows(read_table(path, EXPLANATIONS).to_pylist(), EXPLANATIONS)
    write_table(path, table, EXPLANATIONS, {"sae": "second", "seed": 1})
    (warning,) = Explorer(own).catalog.warnings
    assert "explanations of several SAEs were made with different settings" in warning
