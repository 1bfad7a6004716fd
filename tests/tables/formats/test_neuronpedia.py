"""Neuronpedia's bulk files: what its importer needs, and what comes back from them."""

from __future__ import annotations

import gzip
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from foreign_rows import FOREIGN_SCORES, TEXT, assert_carried, context, row, scores, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.errors import InputError
from safesail.tables.formats import (
    NEURONPEDIA_CARRIED,
    SaeTables,
    read_neuronpedia,
    write_neuronpedia,
)

# Keys as the bulk files have them.
EXPLANATION = {
    *("id", "modelId", "layer", "index", "description", "authorId", "embedding", "triggeredById"),
    *("typeName", "explanationModelName", "notes", "createdAt"),
}
SCORE = {
    *("id", "initiatedByUserId", "value", "explanationId", "explanationScoreTypeName"),
    *("explanationScoreModelName", "jsonDetails", "createdAt"),
}
ACTIVATION = {
    *("id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue"),
    *("values", "creatorId", "dataSource", "dataIndex", "dfaValues", "dfaTargetIndex"),
    *("dfaMaxValue", "createdAt", "lossValues", "logitContributions", "binMin", "binMax"),
    *("binContains", "qualifyingTokenIndex", "zIndices", "zValues"),
}
FEATURE = {
    *("modelId", "layer", "index", "creatorId", "createdAt", "maxActApprox", "hasVector"),
    *("vector", "vectorLabel", "vectorDefaultSteerStrength", "hookName", "topkCosSimIndices"),
    *("topkCosSimValues", "neuron_alignment_indices", "neuron_alignment_values"),
    *("neuron_alignment_l1", "correlated_neurons_indices", "correlated_neurons_pearson"),
    *("correlated_neurons_l1", "correlated_features_indices", "correlated_features_pearson"),
    *("correlated_features_l1", "neg_str", "neg_values", "pos_str", "pos_values"),
    *("frac_nonzero", "freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist"),
    "sourceSetName",
}
KEYS = {
    "explanations": EXPLANATION,
    "explanation_scores": SCORE,
    "activations": ACTIVATION,
    "features": FEATURE,
}


@st.composite
def _row(draw: st.DrawFn) -> dict[str, Any]:
    return row(
        feature=draw(st.integers(0, 40)),
        language=draw(st.sampled_from(["en", "zh"])),
        explanation=draw(TEXT),
        concepts=draw(st.lists(TEXT, max_size=2)),
        tags=draw(st.none() | st.lists(TEXT, max_size=2)),
        explained_by=draw(st.none() | TEXT.filter(bool)),
        imported_scores=draw(FOREIGN_SCORES),
        **draw(scores()),
    )


ROWS = st.lists(_row(), min_size=1, max_size=6, unique_by=lambda r: (r["feature"], r["language"]))


def lines(path: Path) -> list[dict[str, Any]]:
    """Records of a file, as Neuronpedia's importer splits it."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    text = content.decode()
    assert "\x00" not in text
    assert "\\u0000" not in text
    return [json.loads(line) for line in text.strip().split("\n") if line]


def export(sae: SaeTables, folder: Path, **names: Any) -> Path:
    write_neuronpedia([sae], folder, model="google/gemma-2-2b", **names)
    (source,) = (folder / "v1").glob("*/*")
    return source


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_what_it_carries_comes_back(rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda r: r["feature"])
    with tempfile.TemporaryDirectory() as folder:
        export(tables(rows), Path(folder) / "out")
        assert_carried(rows, read_neuronpedia(Path(folder) / "out"), NEURONPEDIA_CARRIED)


@given(ROWS, st.lists(st.integers(0, 50), max_size=4))
@settings(max_examples=40, deadline=None)
def test_every_line_of_a_kind_has_the_same_keys(
    rows: list[dict[str, Any]], active: list[int]
) -> None:
    features = [{"feature": 3, "density": 0.5, "histogram_edges": [0.0, 1.0, 3.0]}]
    given = {f: [context(f), context(f, start=9, kind="silent")] for f in active}
    sae = tables(
        rows, features=features, contexts=lambda wanted: {f: given.get(f, []) for f in wanted}
    )
    with tempfile.TemporaryDirectory() as folder:
        source = export(sae, Path(folder) / "out")
        for kind, keys in KEYS.items():
            for path in (source / kind).iterdir():
                assert all(set(line) == keys for line in lines(path)), kind
        for path in [*source.glob("*.jsonl"), *(Path(folder) / "out/config").iterdir()]:
            assert len({tuple(line) for line in lines(path)}) <= 1, path.name


def test_a_source_is_what_the_importer_reads(tmp_path: Path) -> None:
    feature = {
        "feature": 7,
        "max_activation": 5.0,
        "density": 0.01,
        "histogram_edges": [0.0, 1.0, 3.0],
        "histogram_counts": [4, 2],
        "top_logits": [" a\x00"],
        "bottom_logits": [" b"],
        "nearest_features": [8],
    }
    score = {"correlation": 0.5, "correlation_low": 0.3, "correlation_high": 0.7}
    made = row(
        **score, discrimination=float("nan"), observations=40, mixture="half", scorer="items"
    )
    twin = context(sample="top")
    sae = tables(
        [made, row(feature=9, explanation=None, status="refused")],
        features=[{**feature, "concept": "fraud"}, {**feature, "concept": "theft"}],
        contexts=lambda wanted: {7: [context(), twin, context(start=8, kind="hard_silent")]},
        hook_point="blocks.3.hook_resid_post",
        published="gemma-scope:layer_3/width_16k",
    )
    source = export(sae, tmp_path / "out")
    assert source.relative_to(tmp_path) == Path("out/v1/gemma-2-2b/3-safesail-first")
    (explanation,) = lines(source / "explanations/batch-0.jsonl.gz")
    assert explanation["index"] == "7"
    assert explanation["layer"] == "3-safesail-first"
    assert explanation["modelId"] == "gemma-2-2b"
    assert explanation["description"] == "lies"
    assert len(explanation["id"]) == 25
    assert datetime.fromisoformat(explanation["createdAt"]).tzinfo
    (found,) = lines(source / "explanation_scores/batch-0.jsonl.gz")
    assert (found["value"], found["explanationId"]) == (0.5, explanation["id"])
    details = json.loads(found["jsonDetails"])
    assert (details["low"], details["high"], details["level"]) == (0.3, 0.7, 0.95)
    assert (details["observations"], details["mixture"]) == (40, "half")
    assert details["judge"] == "gpt"
    (neuron,) = lines(source / "features/batch-0.jsonl.gz")
    assert neuron["freq_hist_data_bar_values"] == [0.5, 2.0]
    assert neuron["freq_hist_data_bar_heights"] == [4, 2]
    assert neuron["hookName"] == "blocks.3.hook_resid_post"
    assert neuron["pos_str"] == [" a\ufffd"]
    (activation,) = lines(source / "activations/batch-0.jsonl.gz")
    assert activation["values"] == [0.0, 0.1, 2.5, 0.0]
    assert activation["tokens"] == ["a", " b\ufffd", " <c>", ""]
    assert (activation["maxValue"], activation["maxValueTokenIndex"]) == (2.5, 2)
    (described,) = lines(source / "source.jsonl")
    assert (described["id"], described["setName"]) == ("3-safesail-first", "safesail-first")
    assert described["saelensRelease"] == "gemma-scope"
    assert described["saelensSaeId"] == "layer_3/width_16k"
    (set,) = lines(source / "sourceset.jsonl")
    (release,) = lines(source / "release.jsonl")
    assert set["releaseName"] == release["name"]
    (model,) = lines(source / "model.jsonl")
    assert (model["id"], model["owner"]) == ("gemma-2-2b", "google")


def test_names_that_records_use_stand_in_the_configuration(tmp_path: Path) -> None:
    rows = [
        row(correlation=0.5),
        row(feature=8, explainer="lexical", explained_by=None, judge_model=None),
    ]
    source = export(tables(rows), tmp_path / "out")
    config = {p.stem: {r["name"] for r in lines(p)} for p in (tmp_path / "out/config").iterdir()}
    assert set(config) == {
        *("explanation_type", "explanation_model_type", "explanation_score_model"),
        *("explanation_score_type", "eval_type"),
    }
    for record in lines(source / "explanations/batch-0.jsonl.gz"):
        assert record["typeName"] in config["explanation_type"]
        assert record["explanationModelName"] in config["explanation_model_type"] | {None}
    for record in lines(source / "explanation_scores/batch-0.jsonl.gz"):
        assert record["explanationScoreTypeName"] in config["explanation_score_type"]
        assert record["explanationScoreModelName"] in config["explanation_score_model"]


def test_batches_hold_1024_features(tmp_path: Path) -> None:
    rows = [row(feature=feature) for feature in range(1025)]
    source = export(tables(rows), tmp_path / "out")
    counts = [len(lines(source / f"features/batch-{n}.jsonl.gz")) for n in (0, 1)]
    assert counts == [1024, 1]
    assert [r["feature"] for r in read_neuronpedia(source)] == list(range(1025))


def test_a_second_export_is_the_same_to_the_last_byte(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        export(tables([row(correlation=0.5)]), tmp_path / "out")
        files = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
        contents.append([(p, p.read_bytes()) for p in files])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 13
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_other_things_in_the_folder_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="other things"):
        export(tables([row()]), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "a b", "é", "x\n"])
def test_names_that_neuronpedia_does_not_take_are_refused(tmp_path: Path, name: str) -> None:
    for names in ({"model_id": name}, {"set_name": name}):
        if name:
            with pytest.raises(InputError, match="Neuronpedia takes letters"):
                export(tables([row()]), tmp_path / "out", **names)
    assert not any(tmp_path.iterdir())


def test_two_saes_of_one_source_are_refused(tmp_path: Path) -> None:
    saes = [tables([row()]), tables([row()], sae="second")]
    with pytest.raises(InputError, match="first and second would both be source 3-mine"):
        write_neuronpedia(saes, tmp_path / "out", model="m", set_name="mine")
