"""The main job on the lab, against the planted truth that no stage has seen."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import safesail
from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.lexicon import load_lexicon
from safesail.language_model import LanguageModel
from safesail.pipeline import start_study
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

CONCEPTS = list(load_lexicon().concepts)
# Words of the lexicon's phrases that name no concept.
FUNCTION_WORDS = frozenset(
    ["a", "an", "the", "his", "her", "their", "own", "on", "in", "of", "to", "at", "for", "with"]
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> safesail.Study:
    """The demo's study with a smaller corpus."""
    folder = tmp_path_factory.mktemp("lab")
    start_study(folder, model="builtin:lab", saes=[], concepts=[], corpus=[])
    path = folder / "safesail.toml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("sample_tokens = 200000", "sample_tokens = 40000")
    path.write_text(text.replace("max_tokens = 200000", "max_tokens = 80000"), encoding="utf-8")
    return safesail.Study.open(folder)


def clause_precision(sae_name: str, features: list[int]) -> dict[str, dict[int, float]]:
    """By concept and feature: average precision over held-out clauses, by scikit-learn.

    A clause's score is the feature's largest activation over the tokens that end in it.
    """
    model = LanguageModel.load(str(lab_folder() / "model"), device="cpu")
    candidate = next(c for c in find_candidates(["builtin:lab"], Path()) if c.name == sae_name)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    documents = {
        document.name: document for document in read_heldout(lab_folder() / "heldout.parquet")
    }
    texts = [
        piece
        for name, document in documents.items()
        for piece in model.tokenize(document.text, document=name, prepend_bos=sae.prepend_bos)
    ]
    owners: list[str] = []
    scores: list[np.ndarray] = []
    for batch in model.batches(texts, prepend_bos=sae.prepend_bos):
        hidden = model.activations(batch, [sae.hook_point])[sae.hook_point]
        for row, text in enumerate(batch.texts):
            assert text.start == 0
            tokens = hidden[row, batch.first : batch.first + len(text.token_ids)]
            fires = sae.encode(tokens)[:, features].numpy()
            last = np.cumsum([len(string) for string in text.token_strings]) - 1
            for clause in documents[text.document].clauses:
                inside = (clause.start <= last) & (last < clause.end)
                owners.append(clause.concept.split("/")[0])
                scores.append(fires[inside].max(axis=0, initial=0.0))
    table = np.array(scores)
    return {
        concept: {
            feature: float(average_precision_score(np.array(owners) == concept, table[:, column]))
            for column, feature in enumerate(features)
        }
        for concept in CONCEPTS
    }


def concept_words(concept: str) -> set[str]:
    lexicon = load_lexicon().concepts[concept]
    phrases = [*lexicon.trigger_words(), *lexicon.concept_words()]
    return {word for phrase in phrases for word in phrase.lower().split()} - FUNCTION_WORDS


@pytest.mark.proof
def test_the_first_sae_holds_features_of_the_planted_concepts_and_names_their_words(
    study: safesail.Study,
) -> None:
    ranking = safesail.rank(study)
    assert len(ranking.order()) >= 12
    best = ranking.best()
    found = safesail.explain(study)
    assert found.sae == best
    explanations = {row["feature"]: row["explanation"] or "" for row in found.rows}
    assert len(explanations) >= 20

    chosen: dict[str, set[int]] = {}
    for row in ranking.features[best]:
        chosen.setdefault(row["concept"].split("/")[0], set()).add(row["feature"])
    precision = clause_precision(best, sorted(explanations))
    shown = {}
    for concept in CONCEPTS:
        feature = max(chosen[concept], key=lambda f: precision[concept][f])
        words = set(re.findall(r'"([^"]+)"', explanations[feature]))
        shown[concept] = (precision[concept][feature], words & concept_words(concept))
    good = [c for c, (value, _) in shown.items() if value >= 0.7]
    named = [c for c in good if len(shown[c][1]) >= 2]
    assert len(good) >= 6, shown
    assert len(named) >= 6, shown


@pytest.mark.proof
def test_the_ranking_puts_an_untrained_sae_last(study: safesail.Study, tmp_path: Path) -> None:
    from safesail.lab.autoencoders import RECIPES, untrained_autoencoder

    ranking = safesail.rank(study)
    best = ranking.best()
    untrained = untrained_autoencoder(RECIPES[best], 128)
    untrained.save_inference_model(str(tmp_path / "untrained"))
    path = study.folder / "safesail.toml"
    text = path.read_text(encoding="utf-8")
    joined = text.replace(
        'saes = ["builtin:lab"]', f'saes = ["builtin:lab", "{tmp_path}/untrained"]'
    )
    path.write_text(joined, encoding="utf-8")
    again = safesail.rank(safesail.Study.open(study.folder))
    # Its reconstruction gives it away, or its separation does; either way it is not on top.
    assert "untrained" in again.refused() or again.order()[-1] == "untrained"
