"""The generator of the planted world: labels, determinism, contrast pairs, how hard it is."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from safesail.lab.build import Sizes, write_text
from safesail.lab.documents import Document, bare_clauses
from safesail.lab.lexicon import load_lexicon
from safesail.lab.world import PAIR_WORDS, World

SEED = 5


@pytest.fixture(scope="module")
def world() -> World:
    return World(SEED)


@pytest.fixture(scope="module")
def documents(world: World) -> list[Document]:
    return list(world.documents("train", 600))


def _bare(text: str) -> str:
    """A clause's text without what only joins it to its neighbours."""
    text = text.lower().rstrip(".,")
    for link in (*load_lexicon().links_same, *load_lexicon().links_new):
        text = text.removeprefix(f"{link}, ")
    return text.removeprefix("and ")


def test_lexicon_has_eight_concepts_of_three_children() -> None:
    lexicon = load_lexicon()
    assert len(lexicon.concepts) == 8
    assert {len(concept.children) for concept in lexicon.concepts.values()} == {3}
    assert len(lexicon.topics) >= 8


def test_every_harmless_topic_exists() -> None:
    lexicon = load_lexicon()
    objects = [
        harmless
        for concept in lexicon.concepts.values()
        for table in (concept.aftermath_triggers, *(c.triggers for c in concept.children.values()))
        for choices in table.values()
        for harmless in choices
    ]
    assert len(objects) > 400
    assert {harmless.topic for harmless in objects} <= set(lexicon.topics)


def test_clauses_cover_the_text_in_order(documents: list[Document]) -> None:
    for document in documents:
        assert document.clauses[0].start == 0
        assert document.clauses[-1].end == len(document.text)
        for left, right in zip(document.clauses, document.clauses[1:], strict=False):
            assert right.start == left.end + 1
            assert document.text[left.end] == " "
            assert document.text[left.end - 1] in ".,"
        assert 3 <= len(document.clauses) <= 8


def test_labels_follow_the_words(documents: list[Document]) -> None:
    """A clause is labelled with a concept exactly when a trigger of it meets an object of it."""
    lexicon = load_lexicon()
    words = "|".join(lexicon.person_words + lexicon.thing_words)
    adjective = re.compile(rf"\b(a|an|the|his|her|my|our) (?:{words}) ")
    combinations = {}
    for name, concept in lexicon.concepts.items():
        for child_name, child in concept.children.items():
            acts = [f"{t} {o}" for t in child.triggers for o in child.targets]
            things = concept.aftermath_objects + child.aftermath_objects
            acts += [f"{t} {o}" for t in concept.aftermath_triggers for o in things]
            plain = [re.sub(r"\ban ", "a ", act.lower()) for act in acts]
            combinations[f"{name}/{child_name}"] = re.compile(rf"\b(?:{'|'.join(plain)})")

    def carried(text: str) -> set[str]:
        # Adjectives may stand between determiner and noun: look with and without them.
        plain = adjective.sub(r"\1 ", text)
        text = re.sub(r"\ban ", "a ", f"{text} {plain}")
        return {path for path, pattern in combinations.items() if pattern.search(text)}

    for document in documents[:150]:
        for clause in document.clauses:
            paths = carried(document.text[clause.start : clause.end].lower())
            if clause.concept:
                assert clause.concept in paths, document.text[clause.start : clause.end]
            else:
                assert not paths, document.text[clause.start : clause.end]
            assert (clause.kind == "concept") == bool(clause.concept)


def test_lookalikes_outnumber_concept_clauses_of_the_same_triggers(
    documents: list[Document],
) -> None:
    kinds: Counter[str] = Counter()
    for document in documents:
        kinds.update(clause.kind for clause in document.clauses)
    assert kinds["lookalike"] > kinds["concept"] > 500
    assert kinds["neutral"] > 500


def test_documents_do_not_depend_on_how_many_are_made(world: World) -> None:
    few, many = (list(world.documents("train", count)) for count in (5, 50))
    assert few == many[:5]
    assert list(World(SEED + 1).documents("train", 5)) != few


def test_heldout_shares_no_clause_with_training(world: World, documents: list[Document]) -> None:
    known = bare_clauses(documents, world.lexicon)
    free = list(world.documents("heldout", 300))
    kept = list(world.documents("heldout", 300, known))

    def shared(part: list[Document]) -> int:
        return sum(_bare(d.text[c.start : c.end]) in known for d in part for c in d.clauses)

    assert shared(free) > 0, "the check below would pass without a filter"
    assert shared(kept) == 0


def test_pairs_are_distinct_short_apart_and_differ(world: World) -> None:
    pairs = list(world.pairs(16))
    counts = Counter(pair.concept for pair in pairs)
    assert len(counts) == 24
    assert set(counts.values()) == {16}
    assert len({pair.positive for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.positive != pair.negative
        difference = len(pair.positive.split()) - len(pair.negative.split())
        assert abs(difference) <= PAIR_WORDS


def test_half_of_the_twins_keep_the_trigger_and_half_the_target(world: World) -> None:
    lexicon = load_lexicon()
    triggers = targets = 0
    for pair in world.pairs(16):
        name, child_name = pair.concept.split("/")
        child = lexicon.concepts[name].children[child_name]
        negative = f" {pair.negative.lower()}"
        triggers += any(f" {trigger} " in negative for trigger in child.triggers)
        targets += any(f" {target.lower()}" in negative for target in child.targets)
    assert triggers == pytest.approx(192, abs=30)
    assert targets == pytest.approx(192, abs=30)


def test_pairs_avoid_forbidden_clauses(world: World) -> None:
    first = list(world.pairs(3))
    forbidden = {
        _bare(sentence)
        for pair in first
        for text in (pair.positive, pair.negative)
        for sentence in re.split(r"(?<=\.) ", text)
    }
    for pair in world.pairs(3, forbidden):
        for text in (pair.positive, pair.negative):
            for sentence in re.split(r"(?<=\.) ", text):
                assert _bare(sentence) not in forbidden


def test_text_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    sizes = Sizes(train_documents=40, corpus_documents=20, heldout_documents=20, pairs_per_child=2)
    digests = []
    for run in ("first", "second"):
        write_text(tmp_path / run, sizes)
        digests.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted((tmp_path / run).iterdir())
            }
        )
    assert digests[0] == digests[1]
    assert len(digests[0]) == 4


def test_a_word_list_is_a_poor_detector(world: World) -> None:
    """The trigger words of most concepts separate their clauses with AP below 0.6."""
    documents = list(world.documents("heldout", 900))
    clauses = [(d.text[c.start : c.end].lower(), c.concept) for d in documents for c in d.clauses]
    values = {}
    for name, concept in load_lexicon().concepts.items():
        words = set(concept.aftermath_triggers)
        for child in concept.children.values():
            words |= set(child.triggers)
        pattern = re.compile("|".join(rf"\b{word}\b" for word in words))
        positive = np.array([path.startswith(name) for _, path in clauses])
        counts = [len(pattern.findall(text)) for text, _ in clauses]
        values[name] = average_precision_score(positive, counts)
    assert sum(value < 0.6 for value in values.values()) >= 6, values
    assert min(values.values()) > 0.2, values
