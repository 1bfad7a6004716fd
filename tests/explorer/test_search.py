"""Words that are found, words that are not, and an index that follows the tables."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_study import FEATURES_OF, HOSTILE

from safesail.explorer import Explorer
from safesail.explorer._index import build_index, index_file, index_signature, read_signature
from safesail.explorer._listing import Query
from safesail.study import Study

TOTAL = sum(FEATURES_OF.values())


@pytest.fixture(scope="module")
def explorer(made_up: Study) -> Explorer:
    made = Explorer(made_up)
    made.search.refresh(made.catalog, wait=True)
    return made


@pytest.fixture(scope="module")
def find(explorer: Explorer) -> Callable[[str], set[tuple[str, int]]]:
    keys = {number: key for key, number in explorer.catalog.numbers.items()}
    return lambda text: {keys[n] for n in explorer.search.hits(explorer.catalog, text)}


def test_words_of_explanations_contexts_and_concepts(find: Callable) -> None:
    assert len(find("stolen savings")) == TOTAL
    # In contexts alone, and of one feature alone; the beginning of a word is enough.
    assert find("ledger57") == {("first", 57)}
    assert {feature for _, feature in find("ledger5")} == {5, *range(50, 60)}
    assert ("first", 7) in find("fraud")
    assert find("nowhere") == set()


def test_phrases_lie_within_one_context(find: Callable) -> None:
    # The first word of a context never follows the last one of another.
    assert find('"mentions of savings"') == find("mentions")
    assert find('"savings of mentions"') == set()
    assert find('"ledger57 ledger57"') == set()


def test_scripts_without_spaces_are_found_by_any_part(find: Callable) -> None:
    own = {("first", 3), ("second", 3)}
    for part in ("诈骗", "被盗", "被盗的储蓄", "提到被盗"):
        assert find(part) == own
    assert find("冻结了") == own  # of contexts
    assert find("储蓄被盗") == set()


def test_a_number_finds_the_features_of_that_index_first(explorer: Explorer) -> None:
    found = explorer.features(Query(q="3")).rows[:2]
    assert [(row["sae"], row["feature"]) for row in found] == [("first", 3), ("second", 3)]


@pytest.mark.parametrize(
    "text", [*HOSTILE, '"', '""', "*", "NEAR(", "a AND", "NOT x", "col:x", "^a", "-", "{a b}: c"]
)
def test_operators_are_words(explorer: Explorer, text: str) -> None:
    explorer.features(Query(q=text))
    explorer.search.snippets(text, [("first", 3)])


@given(st.text(max_size=40))
def test_no_text_is_refused(explorer: Explorer, text: str) -> None:
    query = Query.from_parameters({"q": text.encode("utf-8", "replace").decode()})
    rows = explorer.features(query).rows
    explorer.search.snippets(query.q, [(row["sae"], row["feature"]) for row in rows])


def test_operators_do_not_act(find: Callable) -> None:
    assert find("stolen OR nowhere") == set()
    assert find("savings NOT stolen") == set()
    assert find("contexts:ledger57") == set()


def test_snippets_mark_what_was_found(explorer: Explorer) -> None:
    found = explorer.search.snippets("ledger57", [("first", 57), ("first", 56)])
    assert list(found) == [("first", 57)]
    assert "\x01ledger57\x02" in found["first", 57]


def test_without_an_index_explanations_are_searched(own: Study, find: Callable) -> None:
    explorer = Explorer(own)
    explorer.search.hits(explorer.catalog, "savings")
    assert not index_file(own).exists()
    rows = explorer.features(Query(q="number 57")).rows
    assert [(row["sae"], row["feature"]) for row in rows] == [("first", 57)]
    assert explorer.features(Query(q="ledger57")).rows == []


def test_a_damaged_index_is_built_again(own: Study) -> None:
    explorer = Explorer(own)
    index_file(own).parent.mkdir()
    index_file(own).write_bytes(b"SQLite format 3\0 and no more")
    assert read_signature(index_file(own)) is None
    explorer.search.refresh(explorer.catalog, wait=True)
    assert read_signature(index_file(own)) == index_signature(own, explorer.catalog)
    assert explorer.features(Query(q="ledger57")).total == 1
    assert [p.name for p in index_file(own).parent.iterdir()] == ["index.sqlite"]


def test_the_index_follows_the_tables(own: Study) -> None:
    explorer = Explorer(own)
    explorer.search.refresh(explorer.catalog, wait=True)
    (own.contexts("first") / "part-00000.parquet").unlink()
    assert read_signature(index_file(own)) != index_signature(own, explorer.catalog)
    explorer.search.refresh(explorer.catalog, wait=True)
    assert explorer.features(Query(q="ledger57")).total == 0


def test_a_folder_that_cannot_be_written_leaves_the_search_of_explanations(own: Study) -> None:
    (own.folder / "explorer").write_text("a file where the folder should be")
    lines: list[str] = []
    explorer = Explorer(own, lines.append)
    explorer.search.refresh(explorer.catalog, wait=True)
    assert "explanations only" in explorer.search.state
    assert any("could not write" in line for line in lines)
    assert explorer.features(Query(q="number 57")).total == 1


def test_readers_keep_the_old_index_while_a_new_one_is_built(own: Study) -> None:
    explorer = Explorer(own)
    explorer.search.refresh(explorer.catalog, wait=True)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert len(explorer.search.hits(explorer.catalog, "ledger57")) == 1
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        build_index(own, explorer.catalog)
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_the_index_holds_one_document_per_feature(explorer: Explorer, made_up: Study) -> None:
    with sqlite3.connect(index_file(made_up)) as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == (TOTAL,)
