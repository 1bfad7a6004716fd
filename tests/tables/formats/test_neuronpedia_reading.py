"""Reading Neuronpedia's bulk files as they are published, and as they are damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from safesail.errors import InputError
from safesail.tables.formats import read_neuronpedia

# A published file has an embedding, no notes, and no scores beside it.
PUBLISHED = {
    "id": "cljqfoqm1000776wmbr1f5mux",
    "modelId": "gpt2-small",
    "layer": "6-res-jb",
    "index": "650",
    "description": "terms related to fraud",
    "authorId": "clkht01d40000jv08hvalcvly",
    "embedding": [0.1] * 256,
    "typeName": "oai_token-act-pair",
    "explanationModelName": "gpt-3.5-turbo",
    "createdAt": "2024-05-14T12:00:00.000Z",
}


def published(folder: Path, records: list[dict[str, Any]], name: str = "explanations") -> Path:
    path = folder / "v1/gpt2-small/6-res-jb" / name / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    return path


def test_a_published_file_is_read(tmp_path: Path) -> None:
    other = {**PUBLISHED, "id": "x", "index": "3", "description": None}
    path = published(tmp_path, [PUBLISHED, other, {**PUBLISHED, "id": "again"}])
    found = read_neuronpedia(path)
    assert [(r["layer"], r["feature"], r["explanation"]) for r in found] == [
        (6, 650, "terms related to fraud"),
        (6, 3, None),
    ]
    assert [row["duplicates"] for row in found] == [1, 0]
    assert found[0]["explained_by"] == "gpt-3.5-turbo"
    assert found[0]["imported_scores"] is None
    for place in (tmp_path, path.parent, path.parent.parent):
        assert read_neuronpedia(place) == found


def test_foreign_scores_are_kept_by_their_type(tmp_path: Path) -> None:
    score = {
        "id": "s",
        "value": 0.75,
        "explanationId": PUBLISHED["id"],
        "explanationScoreTypeName": "recall_alt",
        "explanationScoreModelName": "gpt-4o-mini",
        "jsonDetails": '{"a": 1}',
    }
    path = published(tmp_path, [PUBLISHED])
    published(tmp_path, [score], "explanation_scores")
    for place in (tmp_path, path):
        (found,) = read_neuronpedia(place)
        assert json.loads(found["imported_scores"]) == [
            {"type": "recall_alt", "model": "gpt-4o-mini", "value": 0.75, "details": '{"a": 1}'}
        ]
        assert "correlation" not in found


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"layer": "res-jb"}, "`layer` 'res-jb' is no source"),
        ({"layer": 6}, "`layer` is missing, or no text"),
        ({"index": "-1"}, "'-1' is not the index"),
        ({"index": "1e3"}, "'1e3' is not the index"),
        ({"index": "99999999999999999999"}, "is not the index"),
        ({"index": None}, "`index` is missing"),
        ({"description": ["x"]}, "`description` is neither text nor null"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, change: dict[str, Any], wrong: str) -> None:
    path = published(tmp_path, [PUBLISHED, {**PUBLISHED, **change}])
    with pytest.raises(InputError) as raised:
        read_neuronpedia(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert wrong in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"[1]\n", "line 1: not a JSON object"),
        (b'{"a": \n', "line 1: not JSON"),
        (b'{}\n{"a": "\xff"}\n', "line 1: `layer`"),
        (b"\n\xff\n", "line 2: not UTF-8"),
        (b"[" * 200_000 + b"\n", "line 1"),
        (b'{"layer": "6-x", "index": ' + b"9" * 5000 + b"}\n", "line 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, wrong: str) -> None:
    path = tmp_path / "batch-0.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_neuronpedia(path)
    assert f"{path}, {wrong}" in str(raised.value)


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = published(tmp_path, [PUBLISHED] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"batch-0.jsonl.gz: cannot be read"):
        read_neuronpedia(path)
    with pytest.raises(InputError, match="holds no explanations"):
        read_neuronpedia(tmp_path / "v1/gpt2-small/nothing")


def test_halves_of_surrogate_pairs_become_replacement_characters(tmp_path: Path) -> None:
    path = tmp_path / "batch-0.jsonl"
    record = {**PUBLISHED, "description": "a\ud800b\x00", "explanationModelName": "m\udfff"}
    path.write_text(json.dumps(record) + "\n")
    (found,) = read_neuronpedia(path)
    assert found["explanation"] == "a\ufffdb\ufffd"
    assert found["explained_by"] == "m\ufffd"
