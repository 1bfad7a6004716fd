"""Corrections are kept beside the original, whole and in order."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safesail.errors import StorageError
from safesail.explorer import Correction, Explorer, read_corrections
from safesail.explorer._catalog import RANK
from safesail.explorer._corrections import corrections_file, write_correction
from safesail.explorer._listing import Query
from safesail.study import Study
from safesail.tables import (
    EXPLANATIONS,
    explanation_rank,
    read_table,
    table_from_rows,
    write_table,
)

ORIGINAL = "mentions of savings that were stolen, number 3"


def correction(**changes: object) -> Correction:
    fields = {
        "author": "Ada",
        "sae": "first",
        "feature": 3,
        "language": "en",
        "field": "explanation",
        "value": "a better text",
        "corrected": ORIGINAL,
        "explained_by": "made-up-judge",
    }
    return Correction.model_validate(fields | changes)


def test_what_is_written_is_read(own: Study) -> None:
    assert read_corrections(own) == []
    made = [
        correction(),
        correction(field="concepts", language="", value=["fraud"], corrected=[]),
        correction(value="line\nfeed \u2028 \u202e 猫 \ud800".encode(errors="replace").decode()),
    ]
    for one in made:
        write_correction(own, one)
    assert read_corrections(own) == made
    lines = corrections_file(own).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["author"] == "Ada"


def test_the_last_one_holds_and_the_original_stays(own: Study) -> None:
    before = own.explanations("first").read_bytes()
    explorer = Explorer(own)
    explorer.correct(correction(value="first try"))
    explorer.correct(correction(value="tells of robbed banks", author="Bea", corrected="first try"))
    explorer.correct(
        correction(field="concepts", language="", value=["violence/insult"], corrected=["violence"])
    )
    view = explorer.feature("first", 3)
    assert view is not None
    assert view.row["explanation"] == "tells of robbed banks"
    assert (view.row["corrected_by"], view.row["concepts"]) == ("Bea", ["violence/insult"])
    assert [one.author for one in view.corrections] == ["Ada", "Bea", "Ada"]
    assert view.explanations[0]["explanation"] == ORIGINAL
    assert own.explanations("first").read_bytes() == before
    found = explorer.features(Query(q="robbed"))
    assert [row["feature"] for row in found.rows] == [3]
    assert 3 in {row["feature"] for row in explorer.features(Query(concept="violence")).rows}


def test_a_text_that_was_corrected_back_is_the_original(own: Study) -> None:
    explorer = Explorer(own)
    explorer.correct(correction())
    explorer.correct(correction(value=f"  {ORIGINAL}\n", corrected="a better text"))
    view = explorer.feature("first", 3)
    assert view is not None
    assert (view.row["explanation"], view.row["corrected_by"]) == (ORIGINAL, None)
    assert len(view.corrections) == 2


def test_a_correction_says_nothing_of_an_explanation_that_came_later(own: Study) -> None:
    """Nor does it wear the later one's scores."""
    explorer = Explorer(own)
    explorer.correct(correction())
    explorer.correct(correction(value="better still", corrected="a better text"))
    path = own.explanations("first")
    rows = read_table(path, EXPLANATIONS).to_pylist()
    row = next(r for r in rows if r["feature"] == 3 and r["explainer"] == "judge")
    row |= {"explanation": "explained anew", "discrimination": 0.99}
    write_table(path, table_from_rows(rows, EXPLANATIONS), EXPLANATIONS, {})
    view = Explorer(own).feature("first", 3)
    assert view is not None
    assert (view.row["explanation"], view.row["corrected_by"]) == ("explained anew", None)
    assert view.row["discrimination"] == 0.99
    assert [one.value for one in view.corrections] == ["better still", "a better text"]


@given(st.data())
def test_the_best_explanation_is_the_same_everywhere(data: st.DataObject) -> None:
    """What the pages show is what `explanation_rank` ranks first."""
    rows = [_random_row(data, number) for number in range(data.draw(st.integers(1, 6)))]
    expected = max(rows, key=lambda row: explanation_rank(row, "zh"))
    with closing(duckdb.connect()) as database:
        table = table_from_rows(rows, EXPLANATIONS)
        database.register("explanations", table.drop_columns(["created_at"]))
        (found,) = database.execute(
            f"SELECT observations FROM explanations ORDER BY {RANK} LIMIT 1".replace(
                "created_at", "observations"
            ),
            {"language": "zh"},
        ).fetchall()
    assert found == (expected["observations"],)


def _random_row(data: st.DataObject, number: int) -> dict[str, Any]:
    row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
    score = st.sampled_from([None, 0.5, math.nan])
    return row | {
        "sae": "first", "layer": 1, "feature": 3, "concepts": [], "status": "scored",
        "explanation": data.draw(st.sampled_from([None, "text", "***"])),
        "masked": data.draw(st.sampled_from([None, False, True])),
        "explainer": data.draw(st.sampled_from(["judge", "imported", "lexical"])),
        "language": data.draw(st.sampled_from(["en", "zh", "de"])),
        "discrimination": data.draw(score), "correlation": data.draw(score),
        # Newer ones later, none alike.
        "observations": number, "created_at": datetime.fromtimestamp(number, UTC),
    }  # fmt: skip


def test_a_correction_in_another_language_leaves_this_one(own: Study) -> None:
    explorer = Explorer(own)
    explorer.correct(correction(language="zh", value="更好"))
    view = explorer.feature("first", 3)
    assert view is not None
    assert view.row["corrected_by"] is None


def test_an_unfinished_line_is_not_read_and_goes(own: Study) -> None:
    write_correction(own, correction())
    path = corrections_file(own)
    with path.open("ab") as file:
        file.write(b'{"author": "Cut off')
    assert len(read_corrections(own)) == 1
    write_correction(own, correction(author="Next"))
    assert [one.author for one in read_corrections(own)] == ["Ada", "Next"]


def test_a_line_that_is_no_correction_is_named(own: Study) -> None:
    write_correction(own, correction())
    with corrections_file(own).open("ab") as file:
        file.write(b'{"author": "Eve"}\n')
    with pytest.raises(StorageError, match=r"corrections\.jsonl, line 2: "):
        read_corrections(own)


def test_a_folder_that_cannot_be_written_is_named(own: Study) -> None:
    corrections_file(own).mkdir()
    with pytest.raises(StorageError, match="could not write"):
        write_correction(own, correction())


def test_processes_do_not_mix_their_lines(own: Study, tmp_path: Path) -> None:
    code = """
import sys
from safesail.explorer._corrections import Correction, write_correction
from safesail.study import Study
study = Study.open(sys.argv[1])
for number in range(40):
    write_correction(study, Correction(
        author=sys.argv[2], sae="first", feature=number, language="en", field="explanation",
        value="x" * 3000, corrected=None, explained_by="nobody"))
"""
    command = [sys.executable, "-c", code, str(own.folder)]
    writers = [subprocess.Popen([*command, name]) for name in ("A", "B", "C")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    found = read_corrections(own)
    for name in "ABC":
        assert [one.feature for one in found if one.author == name] == list(range(40))
