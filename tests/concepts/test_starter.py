"""The starter contrast pairs keep what data/concepts/README.md promises about them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

Pair = dict[str, str]

FOLDER = Path(__file__).parents[2] / "data" / "concepts"
CONCEPTS = [
    "cybercrime",
    "drugs",
    "fraud",
    "harassment",
    "hate",
    "misinformation",
    "politics",
    "privacy",
    "self_harm",
    "sexual",
    "violence",
    "weapons_terror",
]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    lines = (FOLDER / "starter.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(pairs: list[Pair]) -> list[str]:
    return [pair[side] for pair in pairs for side in ("positive", "negative")]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def content_words(text: str) -> set[str]:
    return {word for word in words(text) if len(word) > 2 and word not in ENGLISH_STOP_WORDS}


def test_columns_are_the_documented_ones(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert set(pair) - {"note"} == {"concept", "positive", "negative"}
        assert pair.get("note", "lookalike") == "lookalike"
        assert all(value == value.strip() and value for value in pair.values())
        assert re.fullmatch(r"[a-z_]+/[a-z_]+", pair["concept"])


def test_every_concept_has_children_with_enough_pairs(pairs: list[Pair]) -> None:
    per_child = Counter(pair["concept"] for pair in pairs)
    children = defaultdict(list)
    for child in per_child:
        children[child.split("/")[0]].append(child)
    assert sorted(children) == CONCEPTS
    assert min(per_child.values()) >= 12
    for concept, names in children.items():
        assert len(names) >= 3, concept
        assert sum(per_child[name] for name in names) >= 40, concept


def test_no_text_occurs_twice(pairs: list[Pair]) -> None:
    normalised = Counter(" ".join(words(text)) for text in texts(pairs))
    assert [text for text, count in normalised.items() if count > 1] == []


def test_no_two_pairs_are_near_duplicates(pairs: list[Pair]) -> None:
    counts = CountVectorizer(binary=True, token_pattern=r"[\w']+").fit_transform(texts(pairs))
    shared = (counts @ counts.T).toarray().astype(float)
    sizes = shared.diagonal()
    jaccard = shared / (sizes[:, None] + sizes[None, :] - shared)
    pair_of_text = np.arange(len(sizes)) // 2
    jaccard[pair_of_text[:, None] == pair_of_text[None, :]] = 0.0
    assert jaccard.max() < 0.6


def test_lengths_are_moderate_and_alike_within_a_pair(pairs: list[Pair]) -> None:
    for pair in pairs:
        longer, shorter = sorted(
            (len(pair[side].split()) for side in ("positive", "negative")), reverse=True
        )
        assert 6 <= shorter <= longer <= 30, pair
        assert longer - shorter <= max(3, 0.25 * longer), pair


def test_positives_are_not_longer_than_their_twins_on_the_whole(pairs: list[Pair]) -> None:
    difference = [len(p["positive"].split()) - len(p["negative"].split()) for p in pairs]
    assert abs(float(np.mean(difference))) < 0.5


def test_openings_vary(pairs: list[Pair]) -> None:
    for side in ("positive", "negative"):
        openings = Counter(" ".join(words(pair[side])[:3]) for pair in pairs)
        assert openings.most_common(1)[0][1] <= 3, openings.most_common(1)


def test_lookalikes_share_a_content_word_and_are_many(pairs: list[Pair]) -> None:
    marked: Counter[str] = Counter()
    total = Counter(pair["concept"].split("/")[0] for pair in pairs)
    for pair in pairs:
        if "note" in pair:
            assert content_words(pair["positive"]) & content_words(pair["negative"]), pair
            marked[pair["concept"].split("/")[0]] += 1
    for concept in total:
        assert marked[concept] / total[concept] >= 0.4, concept


def test_words_alone_do_not_tell_a_concept_from_its_twins(pairs: list[Pair]) -> None:
    for concept in CONCEPTS:
        chosen = texts([pair for pair in pairs if pair["concept"].split("/")[0] == concept])
        model = make_pipeline(CountVectorizer(), LogisticRegression(solver="liblinear"))
        pair_of_text = np.random.default_rng(0).permutation(len(chosen) // 2).repeat(2)
        auroc = cross_val_score(
            model,
            chosen,
            [1, 0] * (len(chosen) // 2),
            groups=pair_of_text,
            cv=GroupKFold(5),
            scoring="roc_auc",
        )
        assert auroc.mean() < 0.85, concept


def test_readme_table_counts_what_is_in_the_file(pairs: list[Pair]) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+/[a-z_]+)` \| .+ \| (\d+) \| (\d+) \|$", readme, re.MULTILINE)
    documented = {name: (int(count), int(marked)) for name, count, marked in rows}
    count = Counter(pair["concept"] for pair in pairs)
    marked = Counter(pair["concept"] for pair in pairs if "note" in pair)
    assert documented == {name: (count[name], marked[name]) for name in count}
