"""Safe-SAIL's database and lists of features: written, read back, and read as published."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_rows import MOMENT, TEXT, assert_carried, row, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.errors import InputError
from safesail.tables.formats import SAFE_SAIL_CARRIED, read_safe_sail, write_safe_sail

LANGUAGES = ("en", "zh")


@st.composite
def _row(draw: st.DrawFn) -> dict[str, Any]:
    return row(
        explainer="imported",
        status="imported",
        layer=draw(st.sampled_from([0, 17])),
        feature=draw(st.integers(0, 2**31 - 1)),
        language=draw(st.sampled_from(LANGUAGES)),
        explanation=draw(st.none() | TEXT),
        correlation=draw(st.none() | st.floats(-1, 1)),
        tags=draw(st.lists(TEXT, max_size=3)),
    )


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["layer"], row["feature"], row["language"]


@given(st.lists(_row(), min_size=1, max_size=8, unique_by=_key))
@settings(max_examples=80, deadline=None)
def test_what_it_carries_comes_back(rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda r: (LANGUAGES.index(r["language"]), r["layer"], r["feature"]))
    by_layer = [[r for r in rows if r["layer"] == layer] for layer in (17, 0)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        saes = [tables(found, sae=f"sae-{n}") for n, found in enumerate(by_layer) if found]
        assert write_safe_sail(saes, folder) == len(rows)
        found = [r for path in sorted(folder.iterdir()) for r in read_safe_sail(path)]
        assert_carried(rows, found, SAFE_SAIL_CARRIED)


def test_the_file_is_what_the_toolkit_reads(tmp_path: Path) -> None:
    rows = [
        row(feature=12, correlation=0.5, concepts=["fraud/phishing", "fraud", "theft"]),
        row(feature=3, correlation=float("nan"), judge_concepts=["violence/threat"]),
        row(feature=4, explanation=None, status="refused"),
    ]
    assert write_safe_sail([tables(rows)], tmp_path) == 2
    (path,) = tmp_path.iterdir()
    assert path.name == "neuron_db_en.json"
    assert json.loads(path.read_text()) == {
        "3_3": {"explanation": "lies", "correlation_score": None, "tag_list": ["violence"]},
        "3_12": {"explanation": "lies", "correlation_score": 0.5, "tag_list": ["fraud", "theft"]},
    }


def test_of_several_rows_of_a_feature_the_best_is_written(tmp_path: Path) -> None:
    rows = [
        row(explanation="words", explainer="lexical", correlation=0.9),
        row(explanation="newest", correlation=0.1, created_at=MOMENT.replace(year=2025)),
        row(explanation="old", correlation=0.2),
        row(explanation="foreign", explainer="imported", status="imported"),
        row(explanation="unscored", created_at=MOMENT.replace(year=2026)),
    ]
    for kept, best in ((rows, "newest"), (rows[:1] + rows[3:4], "foreign"), (rows[:1], "words")):
        write_safe_sail([tables(kept)], tmp_path)
        content = json.loads((tmp_path / "neuron_db_en.json").read_text())
        assert content["3_7"]["explanation"] == best


def test_two_saes_of_one_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"first and second both read layer 3.*--sae"):
        write_safe_sail([tables([row()]), tables([row()], sae="second")], tmp_path)
    with pytest.raises(InputError, match=r"'\.\./en' is not the tag of a language"):
        write_safe_sail([tables([row(language="../en")])], tmp_path)


# The published database holds nulls, masks in whole and in part, and so do copies of it.
PUBLISHED = """{
  "17_4213": {"explanation": "Activates on threats.", "correlation_score": 0.41,
              "tag_list": ["violence", "terror"]},
  "17_12046": {"explanation": "***", "correlation_score": 0.2, "tag_list": ["politics"]},
  "0_5": {"explanation": "speeches of *** in 1989", "correlation_score": 0.3, "tag_list": []},
  "0_6": {"explanation": null, "correlation_score": 0.33, "tag_list": []},
  "0_5": {"explanation": "another", "correlation_score": 0.31, "tag_list": []},
  "35_1": {"explanation": "twice", "correlation_score": 0.5, "tag_list": []},
  "35_1": {"explanation": "twice", "correlation_score": 0.5, "tag_list": []}
}"""


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("en_db.json", "en"),
        ("cn_db.json", "zh"),
        ("neuron_db_zh-Hant.json", "zh-Hant"),
        ("mine.json", None),
    ],
)
def test_the_published_database_is_read(tmp_path: Path, name: str, language: str | None) -> None:
    path = tmp_path / name
    path.write_text(PUBLISHED)
    found = read_safe_sail(path)
    assert [(r["layer"], r["feature"], r["masked"], r["duplicates"]) for r in found] == [
        (17, 4213, False, 0),
        (17, 12046, True, 0),
        (0, 5, True, 1),
        (0, 5, False, 1),
        (0, 6, False, 0),
        (35, 1, False, 1),
    ]
    assert {r["language"] for r in found} == {language}
    assert (found[0]["correlation"], found[0]["tags"]) == (0.41, ["violence", "terror"])
    assert "correlation_low" not in found[0]
    assert found[4]["explanation"] is None


def test_a_list_of_features_is_read_each_once_with_its_repeats(tmp_path: Path) -> None:
    path = tmp_path / "indices_layer17.pt"
    torch.save(torch.tensor([5, 9, 5, 5, 2]), path)
    found = read_safe_sail(path)
    assert [(r["layer"], r["feature"], r["duplicates"]) for r in found] == [
        (17, 2, 0),
        (17, 5, 2),
        (17, 9, 0),
    ]
    assert {r["explanation"] for r in found} == {None}


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (_Runs(), "holds something else than one tensor: it is not read"),
        (torch.tensor([1, 2]).to_sparse(), "no one-dimensional tensor"),
        (torch.tensor([True, False]), "no one-dimensional tensor"),
        ({"a": torch.tensor([1])}, "no one-dimensional tensor"),
        (torch.tensor([[1]]), "no one-dimensional tensor"),
        (torch.tensor([1.5]), "no one-dimensional tensor"),
        (torch.tensor([3, -1]), "entry 1: '-1' is not the index"),
    ],
)
def test_other_tensors_are_refused_and_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, wrong: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "indices_layer17.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=wrong) as raised:
        read_safe_sail(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("[]", "holds no JSON object of entries"),
        ('{"a": ', "line 1: not JSON"),
        ('{"17-4": {}}', "key '17-4': not layer and feature"),
        ('{"17_4": []}', "key '17_4': its value is no JSON object"),
        ('{"17_99999999999": {}}', "'99999999999' is not the index"),
        ('{"17_٣": {}}', "not layer and feature"),
        ('{"1_4": {"explanation": 5}}', "key '1_4': `explanation` is neither text nor null"),
        ('{"1_4": {"correlation_score": "0.5"}}', "`correlation_score` is neither a number"),
        ('{"1_4": {"correlation_score": true}}', "`correlation_score` is neither a number"),
        ('{"1_4": {"correlation_score": 7}}', "`correlation_score` lies outside -1 to 1"),
        ('{"1_4": {"correlation_score": -1e999}}', "`correlation_score` lies outside -1 to 1"),
        ('{"1_4": {"tag_list": "politics"}}', "`tag_list` is no list of texts"),
        ('{"1_4": {"tag_list": [1]}}', "`tag_list` is no list of texts"),
        ('{"1_4": ' + "[" * 200_000, "cannot be read"),
    ],
)
def test_a_malformed_database_is_named(tmp_path: Path, content: str, wrong: str) -> None:
    path = tmp_path / "en_db.json"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        read_safe_sail(path)
    assert str(path) in str(raised.value)
    assert wrong in str(raised.value)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: give a database"):
        read_safe_sail(tmp_path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_safe_sail(tmp_path / "en_db.json")
    (tmp_path / "en_db.json").write_bytes(b'{"\xff')
    with pytest.raises(InputError, match="byte 2: not UTF-8"):
        read_safe_sail(tmp_path / "en_db.json")


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    path.write_text('{"1_4": {"explanation": "x", "correlation_score": NaN}}')
    (found,) = read_safe_sail(path)
    assert found["correlation"] is None
