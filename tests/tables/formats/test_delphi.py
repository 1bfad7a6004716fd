"""delphi's folders: written, read back, and read as delphi writes them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from foreign_rows import FOREIGN_SCORES, TEXT, assert_carried, context, row, scores, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.errors import InputError
from safesail.tables.formats import DELPHI_CARRIED, read_delphi, write_delphi

HOOK_POINT = "blocks.3.hook_resid_post"


@st.composite
def _row(draw: st.DrawFn) -> dict[str, Any]:
    return row(
        feature=draw(st.integers(0, 2**31 - 1)),
        language="zh",
        explanation=draw(TEXT),
        concepts=draw(st.lists(TEXT, max_size=2)),
        tags=draw(st.none() | st.lists(TEXT, max_size=2)),
        explained_by=draw(st.none() | TEXT.filter(bool)),
        imported_scores=draw(FOREIGN_SCORES),
        **draw(scores()),
    )


@given(st.lists(_row(), min_size=1, max_size=5, unique_by=lambda r: r["feature"]))
@settings(max_examples=60, deadline=None)
def test_what_it_carries_comes_back(rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda r: str(r["feature"]) + "_")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        sae = tables(rows, hook_point=HOOK_POINT, contexts=lambda w: {f: [context(f)] for f in w})
        assert write_delphi([sae], folder) == len(rows)
        found = {r["feature"]: r for r in read_delphi(folder)}
        assert_carried(rows, [found[r["feature"]] for r in rows], DELPHI_CARRIED)


def test_files_are_delphis(tmp_path: Path) -> None:
    contexts = [
        context(),
        context(kind="hard_silent", level=0, activations=[0.0] * 4, peak=0.0),
        context(split="explain"),
    ]
    made = row(correlation=0.5, correlation_low=0.3, correlation_high=0.7, scorer="items")
    sae = tables([made], contexts=lambda wanted: {7: contexts}, hook_point="layers/3/mlp")
    write_delphi([sae], tmp_path)
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert names == [
        "explanations/layers--3--mlp_latent7.txt",
        "scores/items/layers--3--mlp_latent7.txt",
        "scores/safesail/layers--3--mlp_latent7.json",
    ]
    assert json.loads((tmp_path / names[0]).read_text()) == "lies"
    shown, silent = json.loads((tmp_path / names[1]).read_text())
    assert shown == {
        "str_tokens": ["a", " b\ufffd", " <c>", ""],
        "activations": [0.0, 0.1, 2.5, 0.0],
        "distance": 9,
        "activating": True,
        "prediction": None,
        "probability": None,
        "correct": None,
    }
    assert (silent["activating"], silent["distance"]) == (False, 0)
    ours = json.loads((tmp_path / names[2]).read_text())
    assert ours["scores"]["correlation"]["low"] == 0.3
    # Examples without predictions are no scores.
    (found,) = read_delphi(tmp_path)
    assert found["imported_scores"] is None


@pytest.mark.parametrize(
    "hook_point", ["../../etc/x", "/etc/x", "..", "a\x00b", "a\\..\\b", "C:x", "a\nb"]
)
def test_names_stay_in_the_folder(tmp_path: Path, hook_point: str) -> None:
    write_delphi([tables([row()], hook_point=hook_point)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    (path,) = (tmp_path / "out/explanations").iterdir()
    assert path.name.endswith("_latent7.txt")
    assert path.name.isprintable()
    assert not set(path.name) & set("\\:")


def test_one_language_and_one_sae_a_hook_point(tmp_path: Path) -> None:
    sae = tables([row(), row(language="zh", explanation="谎")])
    with pytest.raises(InputError, match=r"one language, there are en, zh.*--language"):
        write_delphi([sae], tmp_path)
    write_delphi([sae], tmp_path, language="zh")
    (found,) = read_delphi(tmp_path)
    assert (found["explanation"], found["language"]) == ("谎", "zh")
    with pytest.raises(InputError, match=r"first and second read one hook point.*--sae"):
        write_delphi([tables([row()]), tables([row()], sae="second")], tmp_path)


def delphi(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def example(prediction: bool | None, correct: bool | None) -> dict[str, Any]:
    return {
        "str_tokens": ["a"],
        "activations": [0.5],
        "distance": 1,
        "activating": True,
        "prediction": prediction,
        "probability": None,
        "correct": correct,
    }


def test_a_folder_of_delphi_is_read(tmp_path: Path) -> None:
    name = "layers.12.mlp_latent42.txt"
    delphi(tmp_path, f"explanations/{name}", "words of fraud")
    delphi(tmp_path, "explanations/embeddings_latent3.txt", "no layer")
    examples = [example(True, True), example(False, False), example(None, None)]
    delphi(tmp_path, f"scores/detection/{name}", [*examples, example(True, True)])
    delphi(tmp_path, f"scores/embedding/{name}", [{"text": "x", "distance": 0, "similarity": 0.5}])
    intruder = {"interpretation": "", "sample": {}, "prediction": 1, "correct": True}
    delphi(tmp_path, f"scores/intruder/{name}", intruder)
    found = {row["feature"]: row for row in read_delphi(tmp_path)}
    assert (found[42]["layer"], found[3]["layer"]) == (12, None)
    assert found[42]["explanation"] == "words of fraud"
    assert "correlation" not in found[42]
    scores = {one["type"]: one for one in json.loads(found[42]["imported_scores"])}
    assert scores["detection"]["value"] == pytest.approx(2 / 3)
    assert json.loads(scores["detection"]["details"]) == {
        "value": "share correct",
        "answered": 3,
        "examples": 4,
    }
    assert scores["embedding"]["value"] is None
    assert scores["intruder"]["value"] == 1
    assert found[3]["imported_scores"] is None
    assert read_delphi(tmp_path / "explanations") == list(found.values())


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("explanations/x_latent1.txt", ["a"], "neither a JSON string nor null"),
        ("explanations/x_latent99999999999.txt", "a", "is not the index"),
        ("scores/fuzz/layers.1_latent5.txt", [1], "something else than objects"),
        ("scores/safesail/layers.1_latent5.json", [1], "holds no JSON object"),
        ("scores/safesail/layers.1_latent5.json", {"imported_scores": [{}]}, "imported_scores"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, content: Any, wrong: str) -> None:
    delphi(tmp_path, "explanations/layers.1_latent5.txt", "fine")
    path = delphi(tmp_path, name, content)
    with pytest.raises(InputError, match=wrong) as raised:
        read_delphi(tmp_path)
    assert str(path) in str(raised.value)
    path.write_text("no json")
    with pytest.raises(InputError, match=r"not JSON|is not the index"):
        read_delphi(tmp_path)


def test_a_folder_without_explanations_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no explanations/"):
        read_delphi(tmp_path)
