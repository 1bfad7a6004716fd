"""Explanations and contrast pairs of the known-truth judge."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from safesail.judging import render
from safesail.lab.judge._answers import Mind
from safesail.lab.judge._explaining import _of_words, _shown, explain
from safesail.lab.judge._knowledge import Reading, read
from safesail.lab.judge._names import Named, Term, named
from safesail.lab.judge._noise import QUALITIES
from safesail.lab.judge._prompts import asked
from safesail.lab.judge._sentences import sentence
from safesail.lab.judge._words import KINDS, phrases
from safesail.lab.world import World

CONCEPTS = ["violence", "fraud", "fraud/forgery", "privacy"]


def documents(part: str) -> list[str]:
    return [" ".join(document.text.split()[:24]) for document in World(5).documents(part, 400)]


def question(names: Named, language: str = "en") -> dict[str, object]:
    """An explain prompt of a feature that is active exactly where something is named."""

    active: list[str] = []
    silent: list[str] = []
    for text in documents("explain"):
        reading = read(text)
        strengths = names.strengths(reading)
        marked, last = "", 0
        for unit, strength in zip(reading.units, strengths, strict=True):
            level = round(9 * strength) if strength >= 0.5 else 0
            marked += text[last : unit.end] + (f"⟪{level}⟫" if level else "")
            last = unit.end
        (active if "⟪" in marked else silent).append(marked)
    prompt = render(
        "explain", concepts=CONCEPTS, language=language, active=active[:20], silent=silent[:10]
    )
    return {"model": "x", "messages": prompt.messages}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("explanation", "concepts"),
    [
        ("fraud", ["fraud"]),
        ("fraud/forgery, at the object", ["fraud/forgery"]),
        ("violence/murder", ["violence"]),
        ("right after the act words of drugs/using", []),
        ('at the words "the", "and"', []),
        ("words for people", []),
    ],
)
def test_what_a_feature_is_about_is_found(
    explanation: str, concepts: list[str], language: str
) -> None:
    names = named(explanation)
    answer = explain(asked(question(names, language)))
    assert answer["concepts"] == concepts
    assert answer["confidence"] >= 0.7
    assert (language == "zh") == any(char > "\u4e00" for char in answer["explanation"])
    assert len(answer["explanation"].split()) <= 60
    wanted = {name for term in names.terms for name in term.names}
    found = {name for term in named(answer["explanation"]).terms for name in term.names}
    assert found & wanted


def test_words_of_a_concept_are_assigned_to_it() -> None:
    """A list of words names no concept; its words may all be planted for one."""
    entries = phrases().entries.values()
    objects = sorted(
        entry.phrase.split()[-1]
        for entry in entries
        if {path.partition("/")[0] for path in entry.targets} == {"fraud"}
    )
    words = ", ".join(f'"{word}"' for word in objects[:6])
    assert "fraud" in assigned(f"at the words {words}")
    # Words that stand in clauses of every concept are of none, though they do so often.
    assert assigned('right after the words "the", "his", "a"') == []


def assigned(explanation: str) -> object:
    """Concepts for a feature that is active at words: the windows do not say it better."""
    asked_for = asked(question(named(explanation)))
    shown = _shown(asked_for)
    return _of_words(named(explanation), shown, asked_for.concepts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_said_is_read_again(language: str) -> None:
    """Every kind of term, alone and in pairs, with random names."""
    random = Random(0)
    children = phrases().children
    clause_parts = [
        "",
        "at words such as",
        "at the object",
        "after the object",
        "at and after the object",
    ]
    acts = ["at the act", "right after the act", "at and right after the act"]
    objects = ["at the object", "at and after the object"]
    terms: list[Term] = []
    for part in clause_parts:
        terms += named(f"{random.choice(children)} or cooking {part}").terms
    for part in acts:
        terms += named(f"{part} words of {random.choice(children)}").terms
    for part in objects:
        terms += named(f"{part} words of {random.choice(['hate', 'fraud/scam'])}").terms
    terms += [Term("class", frozenset({kind})) for kind in KINDS]
    for where in ("at", "next", "on"):
        terms.append(Term("word", frozenset({"the", "passer-by", "."}), where=where))
    assert len({(term.kind, term.parts, term.where) for term in terms}) == 14
    readings: list[Reading] = []  # no windows: examples come from the lexicon
    for term in terms:
        assert named(sentence(Named((term,)), readings, language)) == Named((term,))
    for first, second in itertools.combinations(terms, 2):
        # Two lots of quoted words are never named together.
        if {first.kind, second.kind} != {"word"} and first.kind != "word":
            both = Named((first, second))
            assert named(sentence(both, readings, language)) == both


def test_nothing_in_common_names_nothing() -> None:
    assert named(sentence(Named(), [], "en")) == Named()
    assert named(sentence(Named(), [], "zh")) == Named()


def test_pairs_are_of_the_world_and_not_taken() -> None:
    mind = Mind(QUALITIES["good"], 0.0, 0)

    def pairs(concept: str, taken: list[str], count: int = 8) -> list[dict[str, str]]:
        prompt = render(
            "contrast_pairs", concept=concept, description="what it is", count=count,
            styles=["plain"] * count, language="en", taken=taken,
        )  # fmt: skip
        body = {"messages": prompt.messages}
        answer: list[dict[str, str]] = mind.answer(asked(body), concept)["pairs"]
        return answer

    for concept in ("fraud", "fraud/forgery", "self_harm", "espionage/leaks"):
        first = pairs(concept, [])
        assert first == pairs(concept, [])
        texts = [text for pair in first for text in pair.values()]
        assert len(first) == 8
        assert len(set(texts)) == 16
        second = pairs(concept, texts)
        assert len(second) == 8
        assert not {text for pair in second for text in pair.values()} & set(texts)
        if concept in phrases().children or concept in ("fraud", "self_harm"):
            for pair in first:
                shown = [
                    max(
                        sum(v for n, v in place.evidence.items() if n.startswith(concept))
                        for place in read(text).places[-1:]
                    )
                    for text in (pair["positive"], pair["negative"])
                ]
                assert shown[0] > 0.99 > shown[1]
