"""What fires on a text: against SAELens and transformers, and against what is true in the lab."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from study_folder import change_setting
from torch import Tensor

from safesail.diagnosis import compare, explained_features
from safesail.errors import InputError, SafesailError, StudyConflictError
from safesail.pipeline import Diagnoser
from safesail.study import Study
from safesail.tables import EXPLANATIONS, FEATURES, read_table, table_from_rows, write_table

TEXT = "the dog sat on the cat, he read a letter to her; nobody sailed the boat"


@pytest.fixture(scope="module")
def diagnoser(two_layers: Path) -> Diagnoser:
    return Diagnoser(Study.open(two_layers))


def block_outputs(study: Path, ids: list[int]) -> list[Tensor]:
    """Of transformers' own model, by layer, [position, d]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(study / "model", attn_implementation="eager")
    outputs: list[Tensor] = []
    for block in model.model.layers:
        block.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    with torch.no_grad():
        model.eval()(torch.tensor([ids]))
    assert [output.ndim for output in outputs] == [2] * models.LAYERS
    return outputs


def test_strengths_are_saelens_activations_over_q999(
    diagnoser: Diagnoser, two_layers: Path
) -> None:
    from sae_lens import SAE

    found = diagnoser.diagnose(TEXT)
    ids = [token.token_id for token in found.tokens]
    assert found.text == TEXT
    assert len(ids) < 31, "the text is read whole"
    states = block_outputs(two_layers, [0, *ids])
    assert [layer.layer for layer in found.layers] == [1, 2]
    for layer in found.layers:
        theirs = SAE.load_from_disk(str(two_layers / "saes" / layer.sae), device="cpu")
        z = theirs.encode(states[layer.layer])[1:].detach().numpy()
        rows = read_table(two_layers / "features" / f"{layer.sae}.parquet", FEATURES).to_pylist()
        q999 = {row["feature"]: row["q999"] for row in rows}
        assert layer.content.all()
        for column, feature in enumerate(layer.features):
            expected = z[:, feature.feature] / q999[feature.feature]
            mine = np.zeros(len(ids))
            chosen = layer.columns == column
            mine[layer.tokens[chosen]] = layer.strengths[chosen]
            np.testing.assert_allclose(mine, expected, atol=1e-4)
        assert len(layer.features) == 6
        assert (layer.strengths > 0).all()


def test_a_long_text_is_read_in_the_pieces_of_collection(
    diagnoser: Diagnoser, two_layers: Path
) -> None:
    from sae_lens import SAE

    text = " ".join([TEXT] * 6)
    found = diagnoser.diagnose(text)
    ids = [token.token_id for token in found.tokens]
    assert len(ids) > 63
    assert found.text == text
    for layer, size in zip(found.layers, (63, 31), strict=True):
        theirs = SAE.load_from_disk(str(two_layers / "saes" / layer.sae), device="cpu")
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            state = block_outputs(two_layers, [0, *piece])[layer.layer]
            z = theirs.encode(state)[1:].detach().numpy()
            for token in range(len(piece)):
                mine = {f.feature.feature: f.activation for f in layer.firings(start + token)}
                for feature in layer.features:
                    expected = z[token, feature.feature]
                    assert mine.get(feature.feature, 0) == pytest.approx(expected, abs=1e-3)


def test_what_follows_from_firings(diagnoser: Diagnoser) -> None:
    found = diagnoser.diagnose(TEXT)
    for token in range(len(found.tokens)):
        firings = found.firings(token)
        strengths = [firing.strength for firing in firings]
        assert strengths == sorted(strengths, reverse=True)
        assert found.firings(token, top=1) == firings[:1]
        strong = [firing for firing in firings if firing.strength >= 0.3]
        assert found.firings(token, threshold=0.3) == strong
    everywhere = [f for token in range(len(found.tokens)) for f in found.firings(token)]
    for peak in found.peaks():
        same = [f for f in everywhere if f.feature == peak.feature]
        assert peak.strength == max(f.strength for f in same)
        assert peak.token == min(f.token for f in same if f.strength == peak.strength)
    assert {p.feature.feature for p in found.peaks()} == {f.feature.feature for f in everywhere}
    for trajectory in found.trajectories:
        assert trajectory.strengths.shape == (2, len(found.tokens))
        for row, layer in enumerate(found.layers):
            mine = [f for f in layer.features if trajectory.concept in f.concepts]
            assert trajectory.features[row] == len(mine)
            for token in range(len(found.tokens)):
                fired = [f.strength for f in layer.firings(token) if f.feature in mine]
                value = trajectory.strengths[row, token]
                if mine:
                    assert value == np.float32(max(fired, default=0))
                else:
                    assert math.isnan(value)
        row, token = trajectory.peak_at
        assert np.nan_to_num(trajectory.strengths[row, token]) == np.float32(trajectory.peak)


def test_json_holds_the_numbers(diagnoser: Diagnoser) -> None:
    found = diagnoser.diagnose(TEXT)
    content = found.to_json(top=2, threshold=0.05)
    assert content["version"] == 1
    assert "".join(token["text"] for token in content["tokens"]) == TEXT
    expected = [
        (f.token, f.feature.sae, f.feature.feature, round(f.strength, 6))
        for token in range(len(found.tokens))
        for f in found.firings(token, top=2, threshold=0.05)
    ]
    rows = content["firings"]
    assert [(r["token"], r["sae"], r["feature"], r["strength"]) for r in rows] == expected
    shown = {(row["sae"], row["feature"]) for row in rows}
    assert {(f["sae"], f["feature"]) for f in content["features"]} == shown
    for trajectory, concept in zip(found.trajectories, content["concepts"], strict=True):
        assert len(concept["strengths"]) == 2
        assert concept["peak"] == round(trajectory.peak, 6)
    assert [len(layer["content"]) for layer in content["layers"]] == [len(found.tokens)] * 2


def test_the_answer_is_diagnosed_as_the_tokens_that_it_is(diagnoser: Diagnoser) -> None:
    """Decoded and tokenised again, it would be other tokens."""
    found = diagnoser.diagnose("the dog", generate=12, temperature=1.0, seed=5)
    prompt = [token for token in found.tokens if token.part == "prompt"]
    answer = [token for token in found.tokens if token.part == "answer"]
    assert "".join(token.text for token in prompt) == "the dog"
    assert found.tokens == (*prompt, *answer)
    assert answer
    tokenizer = diagnoser._workspace.model.tokenizer
    again = tokenizer(found.text, add_special_tokens=False)["input_ids"]
    assert again != [token.token_id for token in found.tokens]
    ids = torch.tensor([0, *(token.token_id for token in found.tokens)])
    expected = block_outputs(diagnoser.study.folder, ids.tolist())[1][1:]
    from sae_lens import SAE

    layer = found.layers[0]
    z = SAE.load_from_disk(str(diagnoser.study.folder / "saes" / layer.sae)).encode(expected)
    for number in range(len(layer.tokens)):
        feature = layer.features[layer.columns[number]].feature
        activation = float(z[layer.tokens[number], feature])
        assert float(layer.activations[number]) == pytest.approx(activation, abs=1e-4)
    same = diagnoser.diagnose("the dog", generate=12, temperature=1.0, seed=5)
    assert same.tokens == found.tokens
    assert diagnoser.diagnose("the dog").answer_ended is None


def test_a_chat_templates_words_and_special_tokens_are_not_read(
    two_layers: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(two_layers, tmp_path / "chat"))
    template = (
        "{{ bos_token }}{% for m in messages %}<|pad|>dog {{ m.role }} {{ m.content }}<|eos|>"
        "{% endfor %}{% if add_generation_prompt %}the boat{% endif %}"
    )
    models.byte_tokenizer(chat_template=template).save_pretrained(folder / "model")
    diagnoser = Diagnoser(Study.open(folder))
    diagnoser._require_same_models = lambda *_: None  # type: ignore[method-assign]
    plain = diagnoser.diagnose("the cat sat", chat=True)
    found = diagnoser.diagnose("the cat sat", chat=True, generate=3, temperature=1.0, seed=1)
    for one in (plain, found):
        prompt = [token for token in one.tokens if token.part == "prompt"]
        assert "".join(token.text for token in prompt if token.counted).strip() == "the cat sat"
        assert all(
            layer.content.tolist() == [token.counted for token in one.tokens]
            for layer in one.layers
        )
    assert plain.text == "<|pad|>dog user the cat sat<|eos|>"
    assert found.text.startswith("<|pad|>dog user the cat sat<|eos|>the boat")
    assert any(token.part == "answer" and token.counted for token in found.tokens)


def test_attention_sinks_are_not_read(two_layers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagnoser = Diagnoser(Study.open(two_layers))
    usual = diagnoser.diagnose(TEXT)
    (first, second) = diagnoser._saes
    ids = [0, *(token.token_id for token in usual.tokens)]
    of_first = block_outputs(two_layers, ids)[1][1:].norm(dim=-1)
    low = type(first)(first.sae, first.features, first.left_out, float(of_first.median()))
    diagnoser.__dict__["_saes"] = (low, second)
    found = diagnoser.diagnose(TEXT)
    assert found.layers[0].content.tolist() == (of_first <= of_first.median()).tolist()
    assert found.layers[1].content.all()
    assert not np.isin(found.layers[0].tokens, np.flatnonzero(~found.layers[0].content)).any()
    for trajectory in found.trajectories:
        if trajectory.features[0]:
            assert np.isnan(trajectory.strengths[0]).tolist() == (~found.layers[0].content).tolist()


def test_two_texts_side_by_side(diagnoser: Diagnoser) -> None:
    one, other = "the dog sat on the cat", "the dog sat by the cat"
    both = diagnoser.compare(one, other)
    assert (both.first.text, both.second.text) == (one, other)
    peaks = [
        {p.feature.feature + 1000 * p.feature.layer: p.strength for p in found.peaks()}
        for found in (both.first, both.second)
    ]
    assert len(both.features) == len(peaks[0].keys() | peaks[1].keys())
    for difference in both.features:
        key = difference.feature.feature + 1000 * difference.feature.layer
        expected = peaks[1].get(key, 0) - peaks[0].get(key, 0)
        assert difference.difference == pytest.approx(expected)
    sizes = [abs(difference.difference) for difference in both.features]
    assert sizes == sorted(sizes, reverse=True)
    turned = diagnoser.compare(other, one)
    assert {d.feature: d.difference for d in turned.features} == {
        d.feature: -d.difference for d in both.features
    }
    same = compare(both.first, both.first)
    assert all(difference.difference == 0 for difference in same.features)
    assert set(both.to_json()) == {"version", "concepts", "features", "first", "second"}


def test_a_part_of_the_study(two_layers: Path) -> None:
    study = Study.open(two_layers)
    (layer,) = Diagnoser(study, layer=2).diagnose(TEXT).layers
    assert layer.sae == "upper"
    (layer,) = Diagnoser(study, sae="first").diagnose(TEXT).layers
    assert layer.sae == "first"
    everything = Diagnoser(study).diagnose(TEXT)
    labels = {c for layer in everything.layers for f in layer.features for c in f.concepts}
    concept = max(labels)
    for layer in Diagnoser(study, concepts=(concept,)).diagnose(TEXT).layers:
        assert layer.features
        assert all(concept in feature.concepts for feature in layer.features)
    with pytest.raises(InputError, match="no explained feature at layer 0"):
        Diagnoser(study, layer=0).load()
    with pytest.raises(InputError, match=r"SAE 'second' has no explanations .* first, upper"):
        Diagnoser(study, sae="second").load()
    with pytest.raises(InputError, match="concept 'drugs' has no pairs"):
        Diagnoser(study, concepts=("drugs",)).load()


@pytest.mark.parametrize("text", ["", " ", " \n\t  "])
def test_a_text_without_words_is_refused(diagnoser: Diagnoser, text: str) -> None:
    with pytest.raises(InputError, match="the text is empty"):
        diagnoser.diagnose(text)


def test_odd_texts_are_read(diagnoser: Diagnoser) -> None:
    for text in ("\x1b[2J\x00dog\r\n", "\u202edog\u200d", "猫🙂", "d" * 300):
        assert diagnoser.diagnose(text).text == text
    assert diagnoser.diagnose("the \ud83d dog").text == "the \ufffd dog"
    assert diagnoser.diagnose("a \ud83d\ude42").text == "a 🙂"
    long = "the dog sat on the cat " * 4_000
    found = diagnoser.diagnose(long)
    assert found.text == long
    assert all(layer.content.all() for layer in found.layers)


def test_no_room_for_an_answer(diagnoser: Diagnoser) -> None:
    with pytest.raises(InputError, match="no room for an answer"):
        diagnoser.diagnose("the dog " * 60, generate=3)


def test_a_study_without_explanations_says_what_to_run(fresh: Path) -> None:
    with pytest.raises(InputError, match=r"no explanations in .*: run `safesail explain` first"):
        Diagnoser(Study.open(fresh)).load()


def test_other_models_and_saes_are_refused(two_layers: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(two_layers, tmp_path / "study"))
    models.random_sae(
        folder / "saes" / "upper", "gated", hook_point="blocks.2.hook_resid_post", width=64, seed=9
    )
    with pytest.raises(StudyConflictError, match=r"upper.*sae was"):
        Diagnoser(Study.open(folder), layer=2).load()
    shutil.rmtree(folder / "model")
    models.tiny_llama(folder / "model", seed=3)
    with pytest.raises(StudyConflictError, match="model was"):
        Diagnoser(Study.open(folder), layer=1).load()
    change_setting(folder, 'saes = ["saes/*"]', 'saes = ["saes/upper"]')
    with pytest.raises(SafesailError, match="no candidate 'first'"):
        Diagnoser(Study.open(folder), layer=1).load()


def test_features_without_q999_are_left_out_and_named(
    two_layers: Path, copy: Callable[[Path], Path]
) -> None:
    folder = copy(two_layers)
    path = folder / "features" / "upper.parquet"
    rows = read_table(path, FEATURES).to_pylist()
    explained = read_table(folder / "explanations" / "upper.parquet", EXPLANATIONS).to_pylist()
    dead = explained[0]["feature"]
    for row in rows:
        if row["feature"] == dead:
            row.update(q999=float("nan"))
    write_table(path, table_from_rows(rows, FEATURES), FEATURES, {})
    (layer,) = Diagnoser(Study.open(folder), sae="upper").diagnose(TEXT).layers
    assert layer.left_out == (dead,)
    assert len(layer.features) == len(explained) - 1


def test_the_best_explanation_and_its_labels() -> None:
    def explanation(**other: Any) -> dict[str, Any]:
        row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
        common = {"sae": "a", "layer": 1, "feature": 3, "explainer": "lexical", "status": "scored"}
        return {**row, **common, "explanation": "words", "created_at": None, **other}

    def chosen(concept: str, separation: float, called: bool) -> dict[str, Any]:
        return {
            "feature": 3, "q999": 2.0, "concept": concept, "separation": separation,
            "called": called,
        }  # fmt: skip

    features = [
        chosen("fraud", 0.9, False),
        chosen("violence/threat", 0.7, True),
        chosen("violence", 0.7, True),
    ]
    judge = {"explainer": "judge", "judge_model": "m", "explanation": "a threat"}
    (found,), left = explained_features([explanation()], features)
    assert (found.concepts, found.labelled_by) == (("violence", "violence/threat"), "choice")
    assert (found.explained_by, left) == ("lexical", [])
    labelled = explanation(**judge, judge_concepts=["fraud/forgery"])
    for rows in ([explanation(), labelled], [labelled, explanation()]):
        (found,), _ = explained_features(rows, features)
        assert (found.concepts, found.labelled_by) == (("fraud", "fraud/forgery"), "judge")
        assert (found.explained_by, found.explanation) == ("m", "a threat")
    (found,), _ = explained_features([explanation(**judge, judge_concepts=[])], features)
    assert (found.concepts, found.labelled_by) == ((), "judge")
    refused = explanation(**{**judge, "explanation": None, "status": "refused"})
    (found,), _ = explained_features([refused, explanation()], features)
    assert found.explained_by == "lexical"
    (found,), _ = explained_features([refused], features[:1])
    assert (found.explanation, found.status, found.concepts) == (None, "refused", ())
    assert explained_features([explanation()], []) == ([], [3])


def test_concepts_light_up_where_they_are(lab_study: Path) -> None:
    """On held-out labelled clauses, against scikit-learn's AUROC."""
    from sklearn.metrics import roc_auc_score

    from safesail.lab import lab_folder
    from safesail.lab.assets import read_heldout

    diagnoser = Diagnoser(Study.open(lab_study))
    documents = read_heldout(lab_folder() / "heldout.parquet")[:60]
    scores: dict[str, list[float]] = {}
    truth, kinds = [], []
    for document in documents:
        found = diagnoser.diagnose(document.text)
        ends = np.cumsum([len(token.text) for token in found.tokens]) - 1
        for clause in document.clauses:
            inside = (ends >= clause.start) & (ends < clause.end)
            for trajectory in found.trajectories:
                lit = np.nan_to_num(trajectory.strengths[:, inside]).max()
                scores.setdefault(trajectory.concept, []).append(float(lit))
            truth.append(clause.concept.partition("/")[0])
            kinds.append(clause.kind)
    assert len(truth) > 200
    concepts = diagnoser._concepts
    found_by = {
        concept: roc_auc_score([one == concept for one in truth], values)
        for concept, values in scores.items()
    }
    assert sum(value > 0.8 for value in found_by.values()) >= len(concepts) - 1, found_by
    for concept, values in scores.items():
        lit, neutral = (
            np.mean([v for v, k, t in zip(values, kinds, truth, strict=True) if test(k, t)])
            for test in (lambda k, t, c=concept: t == c, lambda k, t: k == "neutral")
        )
        assert neutral < 0.6 * lit, concept
