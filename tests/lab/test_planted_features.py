"""Features whose truth the lab planted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safesail.errors import ConfigurationError
from safesail.explaining import PlantedFeature
from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.documents import Document
from safesail.lab.judge._names import named
from safesail.lab.lexicon import load_lexicon
from safesail.lab.planted_features import planted_features, tokens_of
from safesail.tables import Context


@pytest.fixture(scope="module")
def features() -> list[PlantedFeature]:
    return planted_features(32)


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {one.name: one for one in read_heldout(lab_folder() / "heldout.parquet")}


def clauses(document: Document, context: Context) -> list[tuple[str, int, int, int]]:
    """Each clause of a window: concept, its start, and the characters [from, to) in the window."""
    lengths = [len(token) for token in tokens_of(document.text)]
    start = sum(lengths[: context.start])
    end = start + len("".join(context.tokens))
    return [
        (c.concept, c.start, max(c.start, start), min(c.end, end))
        for c in document.clauses
        if c.start < end and c.end > start
    ]


def carries(concept: str, name: str) -> bool:
    return concept == name or concept.startswith(f"{name}/")


@given(st.text(max_size=80))
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


def test_any_first_few_are_spread_over_the_concepts(features: list[PlantedFeature]) -> None:
    names = [one.name for one in features]
    lexicon = load_lexicon()
    assert set(names[:8]) == set(lexicon.concepts)
    for turn in (names[8:16], names[16:24], names[24:]):
        assert [child.partition("/")[0] for child in turn] == names[:8]
    assert len(set(names)) == 32
    assert planted_features(5) == features[:5]


@pytest.mark.parametrize("count", [0, 33])
def test_there_are_no_others(count: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 32"):
        planted_features(count)


def test_windows_are_of_the_text_and_labelled_rightly(
    features: list[PlantedFeature], documents: dict[str, Document]
) -> None:
    lexicon = load_lexicon()
    for one in features[::3]:
        for context in one.evidence.contexts:
            document = documents[context.document]
            tokens = tokens_of(document.text)
            count = len(context.tokens)
            assert count <= 32
            assert context.tokens == tokens[context.start : context.start + count]
            assert len(set(zip(context.token_ids, context.tokens, strict=True))) == len(
                set(context.token_ids)
            )
            spans = clauses(document, context)
            # A token belongs to the clause that its last character is in.
            end = sum(len(token) for token in tokens[: context.start])
            for token, activation in zip(context.tokens, context.activations, strict=True):
                end += len(token)
                concept, first = next((c, s) for c, s, _, to in spans if end <= to)
                if not carries(concept, one.name):
                    assert activation == 0
                    continue
                read = document.text[first:end]
                verbs = lexicon.concepts[concept.partition("/")[0]].trigger_words()
                # Active from the word on with which the verb begins.
                begun = any(
                    re.search(rf"\b{re.escape(verb.split()[0])}\b", read, re.IGNORECASE)
                    for verb in verbs
                )
                assert activation == float(begun)


def test_kinds_are_what_they_say(
    features: list[PlantedFeature], documents: dict[str, Document]
) -> None:
    lexicon = load_lexicon()
    for one in features[::3]:
        concept, _, child = one.name.partition("/")
        words = lexicon.concepts[concept]
        objects, verbs = words.concept_words(), words.trigger_words()
        if child:
            own = words.children[child]
            objects, verbs = [*own.targets, *own.aftermath_objects], list(own.triggers)
        for context in one.evidence.contexts:
            carried = [
                concept
                for concept, *_ in clauses(documents[context.document], context)
                if carries(concept, one.name)
            ]
            text = "".join(context.tokens).lower()
            nouns = [phrase.partition(" ")[2] for phrase in objects]
            found = [word for word in verbs if re.search(rf"\b{re.escape(word)}\b", text)]
            found += [noun for noun in nouns if re.search(rf"\b{re.escape(noun)}\b", text)]
            if context.kind == "active":
                assert carried
                assert context.level == 10
                assert context.peak == 1.0 == context.activations[context.peak_at]
                # The peak ends an object, and a verb is before it.
                read = "".join(context.tokens[: context.peak_at + 1]).lower()
                assert any(read.endswith(phrase.partition(" ")[2]) for phrase in objects)
                assert any(re.search(rf"\b{verb}\b", read) for verb in words.trigger_words())
            else:
                assert not carried
                assert context.level == 0 == context.peak
                assert bool(found) >= (context.kind == "hard_silent")
                whole = [p for p in objects if re.search(rf"\b{re.escape(p)}\b", text)]
                assert context.kind == "hard_silent" or not whole


def test_no_document_is_on_both_sides(features: list[PlantedFeature]) -> None:
    for one in features:
        split = {context.document: context.split for context in one.evidence.contexts}
        assert all(context.split == split[context.document] for context in one.evidence.contexts)
        assert one.evidence.shortage() is None


def test_descriptions_name_the_feature_and_another_that_its_windows_lack(
    features: list[PlantedFeature], documents: dict[str, Document]
) -> None:
    children = load_lexicon().concepts
    for one in features:
        concept, _, child = one.name.partition("/")
        (term,) = named(one.right).terms
        assert term.kind == "clause"
        assert term.names == {
            f"{concept}/{c}" for c in ([child] if child else children[concept].children)
        }
        (other,) = named(one.wrong).terms
        (name,) = other.names
        assert name.partition("/")[0] != concept
        for context in one.evidence.contexts:
            assert name not in [c for c, *_ in clauses(documents[context.document], context)]
