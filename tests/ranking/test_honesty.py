"""Long checks on the lab: what is called on nothing, and what the intervals cover."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from safesail.builtin import builtin_path
from safesail.concepts import ConceptSet, ContrastPair
from safesail.corpus import Corpus
from safesail.lab.world import World
from safesail.language_model import LanguageModel
from safesail.ranking._design import PairDesign
from safesail.ranking._score import score_candidate
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import CorpusSource, RankingSettings

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1_800)]
SETTINGS = RankingSettings()
SAMPLES = 2_000
PAIRS = 40


def pooled_activations(name: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Largest activation of each feature of a lab SAE on each text, [texts, width]."""
    model = LanguageModel.load(str(builtin_path("lab", "model")), device="cpu")
    (candidate,) = (c for c in find_candidates(["builtin:lab"], Path()) if c.name == name)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    sae.check_fits(model)
    found = np.zeros((len(texts), sae.width), dtype=np.float32)
    pieces = [
        model.tokenize(text, document=str(n), prepend_bos=True)[0] for n, text in enumerate(texts)
    ]
    for batch in model.batches(pieces, prepend_bos=True):
        hidden = model.activations(batch, [sae.hook_point])[sae.hook_point]
        for row, text in enumerate(batch.texts):
            activations = sae.encode(hidden[row][batch.content_mask[row]])
            found[int(text.document)] = activations.amax(0).numpy()
    return found


@dataclass(frozen=True)
class Pool:
    """Many pairs of the lab's world and the activations of an SAE on their texts."""

    pairs: list[ContrastPair]
    pooled: dict[str, NDArray[np.float32]]
    scale: dict[str, NDArray[np.float32]]
    """q999, which a study takes from its corpus: no matter of the pairs drawn."""

    def score(self, sae: str, numbers: Sequence[int], pairs: Sequence[ContrastPair], seed: int):
        design = PairDesign.of(ConceptSet(pairs), seed)
        if len(pairs) == len(self.pairs):  # of all, the value is asked and no interval
            design = replace(design, draws=design.draws[:2])
        place = {}
        for number in numbers:
            place.setdefault(self.pairs[number].positive, 2 * number)
            place.setdefault(self.pairs[number].negative, 2 * number + 1)
        rows = self.pooled[sae][[place[text] for text in design.texts]]
        return {s.role.concept: s for s in score_candidate(rows, self.scale[sae], design, SETTINGS)}


@pytest.fixture(scope="module")
def pool() -> Pool:
    torch.set_num_threads(2)
    pairs = [
        ContrastPair(pair.concept.split("/")[0], pair.positive, pair.negative)
        for pair in World(20261121).pairs(450)
    ]
    texts = [text for pair in pairs for text in (pair.positive, pair.negative)]
    names = ("layer2-resid-topk16", "layer2-mlp-topk16")
    pooled = {name: pooled_activations(name, texts) for name in names}
    scale = {name: np.quantile(rows, 0.999, axis=0) for name, rows in pooled.items()}
    return Pool(pairs, pooled, scale)


def test_intervals_cover_the_value_from_a_very_large_set(
    pool: Pool, record_property: Callable[[str, object], None]
) -> None:
    """Fresh samples of 40 pairs a concept; the value is that of all 1,350."""
    numbers = range(len(pool.pairs))
    # Named apart: in so many pairs of one grammar, chance templates chain them all together.
    apart = [
        ContrastPair(p.concept, p.positive, p.negative, template=str(n))
        for n, p in enumerate(pool.pairs)
    ]
    concepts = np.array([pair.concept for pair in pool.pairs])
    names = list(dict.fromkeys(concepts.tolist()))
    truth = {sae: pool.score(sae, numbers, apart, 0) for sae in pool.pooled}
    covered: dict[str, dict[tuple[str, str], list[bool]]] = {
        "i_cdf": {},
        "separation": {},
        "separating": {},
    }
    generator = np.random.default_rng(0)
    for sample in range(SAMPLES // len(names)):
        sae = list(pool.pooled)[sample % 2]
        drawn = np.concatenate(
            [generator.choice(np.flatnonzero(concepts == n), PAIRS, replace=False) for n in names]
        )
        scores = pool.score(sae, drawn, [pool.pairs[n] for n in drawn], sample)
        for name, score in scores.items():
            value = truth[sae][name]
            for metric, (low, high), true in (
                ("i_cdf", score.i_cdf_interval, value.distinction.i_cdf),
                ("separation", score.separation.interval, value.separation.best),
                ("separating", score.separating.interval, value.separating.count),
            ):
                place = covered.setdefault(metric, {}).setdefault((sae, name), [])
                place.append(bool(low <= true <= high))
    shares = {
        metric: float(np.mean([value for values in found.values() for value in values]))
        for metric, found in covered.items()
    }
    record_property("covered", shares)  # shown by `pytest --junit-xml`
    assert 0.92 <= shares["i_cdf"] <= 0.98, shares
    assert 0.92 <= shares["separation"] <= 0.98, shares
    assert shares["separating"] >= 0.92, shares
    for metric, found in covered.items():
        worst = min(found, key=lambda key, found=found: np.mean(found[key]))
        assert np.mean(found[worst]) >= 0.85, (metric, worst, np.mean(found[worst]))


def test_nothing_is_called_on_a_null_concept_and_planted_differences_are(
    record_property: Callable[[str, object], None],
) -> None:
    """Both sides of a pair are drawn from the same texts; then ten features are raised."""
    source = CorpusSource(path=str(builtin_path("lab", "corpus.parquet")))
    sentences = (document.text.split(".")[0] + "." for document in Corpus([source], Path()))
    texts = list(dict.fromkeys(islice(sentences, 3_000)))
    pooled = pooled_activations("layer2-resid-topk16", texts)
    scale = np.quantile(pooled, 0.999, axis=0).astype(np.float32)
    generator = np.random.default_rng(0)
    runs, false_runs, found, planted = 200, 0, 0, 10
    for _ in range(runs):
        drawn = generator.choice(len(texts), 2 * PAIRS, replace=False)
        pairs = [ContrastPair("null", texts[a], texts[b]) for a, b in drawn.reshape(-1, 2)]
        design = PairDesign.of(ConceptSet(pairs), 0)
        number = {text: n for n, text in enumerate(texts)}
        rows = pooled[[number[text] for text in design.texts]]
        (score,) = score_candidate(rows, scale, design, SETTINGS)
        false_runs += score.called_features > 0
        raised = rows.copy()
        features = generator.choice(rows.shape[1], planted, replace=False)
        carries = generator.random((PAIRS, planted)) < 0.7
        raised[np.ix_(design.positive, features)] += carries * 2 * np.maximum(scale[features], 0.1)
        (score,) = score_candidate(raised, scale, design, SETTINGS)
        called = {int(row["feature"]) for row in score.chosen if row["called"]}
        found += len(called & set(features.tolist()))
    record_property("null runs that call a feature", false_runs)
    record_property("planted features found", found / runs / planted)
    assert false_runs <= 16
    assert found >= 0.8 * runs * planted
