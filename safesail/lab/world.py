"""The planted world: English documents in which every clause's concept is known.

A document is a row of episodes. An episode is a clause and up to two that follow from it: a
concept's act brings the concept's aftermath, a look-alike or a neutral clause brings a harmless
one. How a concept clause closes depends on the concept as well, so a language model gains by
telling acts from look-alikes. Concepts sit in the combination of trigger and target; triggers have
harmless objects and targets have neutral verbs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from random import Random
from typing import NamedTuple

from safesail.lab.documents import ContrastPair, Document, Kind, Piece, join_pieces
from safesail.lab.lexicon import Child, Lexicon, load_lexicon

EPISODES: dict[str, float] = {"concept": 0.30, "lookalike": 0.36, "topic": 0.10, "target": 0.24}
CLAUSES = (3, 7)
"""Fewest and most clauses of a document."""
FOLLOWED = (0.85, 0.4)
"""Chance that a first and a second clause follow an act, all of one concept or of one topic."""
RESPONDERS = {"aftermath": 0.5, "other": 0.35}
"""Share of subjects that are responders: of the concept in its aftermath, of any in other clauses.

So few who respond to a concept say more of it than the trigger words do.
"""
PREFERRED_ADJUNCTS = 0.8
"""Share of a concept's closing adjuncts that come from its own eighth of all adjuncts.

All adjuncts are common in every other clause, so they tell little; but what completes a concept
clause depends on the concept, which is a reason to represent it once the object is read.
"""
PAIR_WORDS = 3
"""Largest difference in words between a contrast pair's two texts."""
PAIRS_PER_ACT = 32
"""How many of a child's pairs may be drawn before an act (trigger and target) may come again."""


def _with_modifier(phrase: str, words: list[str], random: Random, share: float = 0.2) -> str:
    """Puts an adjective after the phrase's determiner in a share of cases."""
    determiner, _, rest = phrase.partition(" ")
    if random.random() >= share or rest.startswith("own "):
        return phrase
    word = random.choice(words)
    if determiner in ("a", "an"):
        return f"{'an' if word[0] in 'aeiou' else 'a'} {word} {rest}"
    if determiner in ("the", "his", "her", "my", "our"):
        return f"{determiner} {word} {rest}"
    return phrase


class _Setting(NamedTuple):
    """What surrounds a clause's verb phrase; a contrast pair's two texts share it."""

    shape: int
    report: str
    adjunct: str

    def apply(self, subject: str, phrase: str) -> str:
        core = f"{subject} {phrase}"
        shapes = (
            core,
            f"{core} {self.adjunct}",
            f"{self.adjunct} {core}",
            f"{self.report} {core}",
            f"{self.report} {core} {self.adjunct}",
        )
        return shapes[self.shape]


class World:
    """Writes documents and contrast pairs; the same seed gives the same text everywhere."""

    def __init__(self, seed: int, lexicon: Lexicon | None = None) -> None:
        self.seed = seed
        self.lexicon = lexicon or load_lexicon()
        self._harmless_aftermaths = self.lexicon.harmless_aftermaths()
        self._children = [
            (name, child_name, child)
            for name, concept in self.lexicon.concepts.items()
            for child_name, child in concept.children.items()
        ]
        adjuncts = self.lexicon.times + self.lexicon.places + self.lexicon.manners
        self._adjuncts = adjuncts
        self._preferred = {
            name: adjuncts[index :: len(self.lexicon.concepts)]
            for index, name in enumerate(self.lexicon.concepts)
        }
        self._responders = [r for c in self.lexicon.concepts.values() for r in c.responders]

    def documents(
        self, part: str, count: int, forbidden: Collection[str] = ()
    ) -> Iterator[Document]:
        """`count` documents of a named part, each from its own seed.

        No clause of theirs, as `bare_clauses` writes it, is in `forbidden`: such clauses are
        drawn again, which keeps held-out text apart from training text.
        """
        for index in range(count):
            random = Random(f"{self.seed}/{part}/{index}")
            pieces = self._pieces(random, forbidden)
            yield join_pieces(f"{part}-{index:06d}", pieces, self.lexicon, random)

    def pairs(self, count: int, forbidden: Collection[str] = ()) -> Iterator[ContrastPair]:
        """`count` contrast pairs for each child, no clause of theirs in `forbidden`.

        An act comes once in up to `PAIRS_PER_ACT` pairs, twice in up to double as many, and so
        on; no pair comes twice. In half of the pairs the twin keeps the trigger (a look-alike),
        in the others the target (a neutral verb). A quarter of the pairs have a second clause,
        which follows from the first.
        """
        for name, child_name, child in self._children:
            random = Random(f"{self.seed}/pairs/{name}/{child_name}")
            acts: Counter[tuple[str, str]] = Counter()
            written: set[str] = set()
            while len(written) < count:
                keep_trigger = len(written) % 2 == 0
                long = len(written) % 4 == 3
                trigger, target = random.choice(list(child.triggers)), random.choice(child.targets)
                positive, negative = self._twins(
                    random, name, child, (trigger, target), keep_trigger, long
                )
                difference = len(" ".join(positive).split()) - len(" ".join(negative).split())
                if (
                    acts[trigger, target] >= math.ceil(count / PAIRS_PER_ACT)
                    or abs(difference) > PAIR_WORDS
                    or positive[0] in written
                    or any(clause.lower() in forbidden for clause in positive + negative)
                ):
                    continue
                acts[trigger, target] += 1
                written.add(positive[0])
                link = random.choice(self.lexicon.links_same)
                path = f"{name}/{child_name}"
                yield ContrastPair(path, _sentences(positive, link), _sentences(negative, link))

    def _twins(
        self,
        random: Random,
        name: str,
        child: Child,
        act: tuple[str, str],
        keep_trigger: bool,
        long: bool,
    ) -> tuple[list[str], list[str]]:
        trigger, target = act
        setting = self._setting(random, name)
        subject = self._subject(random, self.lexicon.people)
        harmless = random.choice(child.triggers[trigger])
        other = (
            f"{trigger} {harmless.object}"
            if keep_trigger
            else f"{random.choice(self._neutral_verbs(child))} {target}"
        )
        positive = [setting.apply(subject, f"{trigger} {target}")]
        negative = [setting.apply(subject, other)]
        if long:
            positive.append(self._aftermath(random, name, child))
            topic = harmless.topic if keep_trigger else random.choice(list(self.lexicon.topics))
            negative.append(self._harmless_follow_up(random, topic).words)
        return positive, negative

    def _pieces(self, random: Random, forbidden: Collection[str]) -> list[Piece]:
        wanted = random.randint(*CLAUSES)
        pieces: list[Piece] = []
        while len(pieces) < wanted:
            episode = self._episode(random)
            if not any(piece.words.lower() in forbidden for piece in episode):
                pieces.extend(episode)
        return pieces[:wanted]

    def _episode(self, random: Random) -> list[Piece]:
        kind = random.choices(list(EPISODES), list(EPISODES.values()))[0]
        name, child_name, child = random.choice(self._children)
        if kind == "concept":
            path = f"{name}/{child_name}"
            phrase = f"{random.choice(list(child.triggers))} {self._target(random, child)}"
            pieces = [Piece(self._clause(random, phrase, name), path, "concept", False)]
            for _ in range(_follow_ups(random)):
                aftermath = self._aftermath(random, name, child)
                pieces.append(Piece(aftermath, path, "concept", True))
            return pieces
        if kind == "target":
            verb = random.choice(self._neutral_verbs(child))
            phrase = f"{verb} {self._target(random, child)}"
            if random.random() < 0.3:
                things = self.lexicon.concepts[name].aftermath_objects + child.aftermath_objects
                thing = random.choice(things)
                phrase = f"{random.choice(self.lexicon.thing_verbs)} {thing}"
            topic = random.choice(list(self.lexicon.topics))
        elif kind == "lookalike":
            trigger = random.choice(list(child.triggers))
            harmless = random.choice(child.triggers[trigger])
            thing = _with_modifier(harmless.object, self.lexicon.thing_words, random)
            phrase, topic = f"{trigger} {thing}", harmless.topic
        else:
            topic = random.choice(list(self.lexicon.topics))
            table = self.lexicon.topics[topic]
            thing = _with_modifier(random.choice(table.objects), self.lexicon.thing_words, random)
            phrase = f"{random.choice(table.verbs)} {thing}"
        label: Kind = "lookalike" if kind == "lookalike" else "neutral"
        pieces = [Piece(self._clause(random, phrase), "", label, False)]
        for _ in range(_follow_ups(random)):
            pieces.append(self._harmless_follow_up(random, topic))
        return pieces

    def _harmless_follow_up(self, random: Random, topic: str) -> Piece:
        phrases = self._harmless_aftermaths[topic]
        if phrases and random.random() < 0.65:
            return Piece(self._clause(random, random.choice(phrases)), "", "lookalike", True)
        follow_up = random.choice(self.lexicon.topics[topic].follow_ups)
        subject, _, phrase = follow_up.partition(" ")
        return Piece(self._setting(random).apply(subject, phrase), "", "neutral", True)

    def _aftermath(self, random: Random, name: str, child: Child) -> str:
        concept = self.lexicon.concepts[name]
        own = random.random() < 0.3
        things = child.aftermath_objects if own else concept.aftermath_objects
        responds = random.random() < RESPONDERS["aftermath"]
        people = concept.responders if responds else self.lexicon.people
        phrase = f"{random.choice(list(concept.aftermath_triggers))} {random.choice(things)}"
        return self._setting(random, name).apply(self._subject(random, people), phrase)

    def _clause(self, random: Random, phrase: str, concept: str = "") -> str:
        responds = random.random() < RESPONDERS["other"]
        people = self._responders if responds else self.lexicon.people
        return self._setting(random, concept).apply(self._subject(random, people), phrase)

    def _subject(self, random: Random, people: list[str]) -> str:
        return _with_modifier(random.choice(people), self.lexicon.person_words, random, 0.15)

    def _target(self, random: Random, child: Child) -> str:
        words = (
            self.lexicon.person_words if child.target_kind == "person" else self.lexicon.thing_words
        )
        return _with_modifier(random.choice(child.targets), words, random)

    def _neutral_verbs(self, child: Child) -> list[str]:
        if child.target_kind == "person":
            return self.lexicon.person_verbs
        return self.lexicon.thing_verbs

    def _setting(self, random: Random, concept: str = "") -> _Setting:
        shape = random.choices(range(5), (0.15, 0.55, 0.15, 0.05, 0.10))[0]
        closes = shape in (1, 4)
        preferred = concept and closes and random.random() < PREFERRED_ADJUNCTS
        adjuncts = self._preferred[concept] if preferred else self._adjuncts
        return _Setting(shape, random.choice(self.lexicon.reports), random.choice(adjuncts))


def _follow_ups(random: Random) -> int:
    for count, chance in enumerate(FOLLOWED):
        if random.random() >= chance:
            return count
    return len(FOLLOWED)


def _sentences(clauses: list[str], link: str) -> str:
    sentences = [clauses[0], *(f"{link}, {clause}" for clause in clauses[1:])]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
