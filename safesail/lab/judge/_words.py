"""The lexicon as a tree of words: which phrases of the lab stand where in a text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

from safesail.lab.lexicon import Lexicon, load_lexicon

Part = Literal["act", "between", "object", "rest"]
"""Of a clause: its verb, what stands between that and its object, its object, all the rest."""

KINDS = ("people", "times", "places", "manners", "reports", "linking words")
"""Classes of words that belong to no concept and no topic."""

_UNIT = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_DETERMINERS: dict[str, tuple[str, ...]] = {
    word: (word,) for word in ("the", "his", "her", "my", "our")
}
_DETERMINERS |= {"a": ("a", "an"), "an": ("an", "a")}


class Unit(NamedTuple):
    """A word or a punctuation mark: its characters [start, end) and its text in lower case."""

    start: int
    end: int
    text: str


def units(text: str) -> list[Unit]:
    """Words and punctuation marks of a text in order."""
    return [Unit(*match.span(), match[0].lower()) for match in _UNIT.finditer(text)]


@dataclass
class Entry:
    """What the lexicon knows of a phrase.

    Attributes:
        phrase: in lower case.
        acts: children whose act it triggers.
        aftermaths: concepts whose aftermath it triggers.
        targets: children whose act it completes.
        remains: children whose aftermath it completes; all of a concept where it is the concept's.
        topics: neutral topics that it belongs to.
        verb: it opens the verb phrase; else it closes one, or is a subject.
        responders: concepts that it responds to.
        links: it continues the clause before.
        kinds: of `KINDS`.
    """

    phrase: str
    acts: set[str] = field(default_factory=set)
    aftermaths: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)
    remains: set[str] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    verb: bool = False
    responders: set[str] = field(default_factory=set)
    links: bool = False
    kinds: set[str] = field(default_factory=set)

    def may_carry(self, path: str) -> bool:
        """Whether the phrase belongs to a child or its concept in any way."""
        concept = path.partition("/")[0]
        return (
            path in self.acts | self.targets | self.remains
            or concept in self.aftermaths | self.responders
        )

    @property
    def completes(self) -> bool:
        """It is an object, which with its verb says what the clause is about."""
        return not self.verb and bool(self.targets or self.remains or self.topics)

    def act_of(self, path: str) -> bool:
        """As a verb it opens an act or an aftermath of a child."""
        return path in self.acts or path.partition("/")[0] in self.aftermaths

    def object_of(self, path: str) -> bool:
        """As an object it completes an act or an aftermath of a child."""
        return path in self.targets or path in self.remains


@dataclass
class _Node:
    branches: dict[str, _Node] = field(default_factory=dict)
    entry: Entry | None = None
    entries: int = 0  # at this node and below
    only: Entry | None = None  # that one, where it is one


class Found(NamedTuple):
    """A phrase in a text.

    `first` and `end` are its units [first, end); `known` lists from which unit on it is taken for
    which entry: a longer phrase replaces a shorter one, and an entry is known as soon as no other
    begins the same way.
    """

    first: int
    end: int
    known: list[tuple[int, Entry]]


class Phrases:
    """All phrases of the lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.entries: dict[str, Entry] = {}
        self.children = [
            f"{name}/{child}" for name, one in lexicon.concepts.items() for child in one.children
        ]
        self.topics = list(lexicon.topics)
        self._modifiers = {*lexicon.person_words, *lexicon.thing_words}
        self._gather(lexicon)
        self._root = _Node()
        for entry in self.entries.values():
            node = self._root
            for unit in units(entry.phrase):
                node = node.branches.setdefault(unit.text, _Node())
                node.entries += 1
                node.only = entry
            node.entry = entry

    def _gather(self, lexicon: Lexicon) -> None:
        for name, concept in lexicon.concepts.items():
            paths = {f"{name}/{child}" for child in concept.children}
            for phrase in concept.responders:
                self._entry(phrase).responders.add(name)
            for phrase in concept.aftermath_objects:
                self._entry(phrase).remains |= paths
            for phrase, harmless in concept.aftermath_triggers.items():
                self._entry(phrase, verb=True).aftermaths.add(name)
                for one in harmless:
                    self._entry(one.object).topics.add(one.topic)
            for child_name, child in concept.children.items():
                path = f"{name}/{child_name}"
                for phrase in child.targets:
                    self._entry(phrase).targets.add(path)
                for phrase in child.aftermath_objects:
                    self._entry(phrase).remains.add(path)
                for phrase, harmless in child.triggers.items():
                    self._entry(phrase, verb=True).acts.add(path)
                    for one in harmless:
                        self._entry(one.object).topics.add(one.topic)
        for topic, table in lexicon.topics.items():
            for phrase in table.verbs:
                self._entry(phrase, verb=True).topics.add(topic)
            for phrase in (*table.objects, *table.follow_ups):
                self._entry(phrase).topics.add(topic)
        for phrase in (*lexicon.person_verbs, *lexicon.thing_verbs):
            self._entry(phrase, verb=True)
        for phrase in lexicon.links_same:
            self._entry(phrase).links = True
        # Known also so that nothing else is read into them: as planned is no plan.
        links = [*lexicon.links_same, *lexicon.links_new]
        responders = [one for concept in lexicon.concepts.values() for one in concept.responders]
        people = [*lexicon.people, *responders]
        places, manners = lexicon.places, lexicon.manners
        tables = (people, lexicon.times, places, manners, lexicon.reports, links)
        for kind, listed in zip(KINDS, tables, strict=True):
            for phrase in listed:
                self._entry(phrase).kinds.add(kind)

    def _entry(self, phrase: str, *, verb: bool = False) -> Entry:
        entry = self.entries.setdefault(phrase.lower(), Entry(phrase.lower()))
        entry.verb |= verb
        return entry

    def find(self, text: list[Unit]) -> list[Found]:
        """Phrases of a text in order; none overlap, the longest from each place is taken."""
        found = []
        place = 0
        while place < len(text):
            one = self._match(text, place)
            if one is not None:
                found.append(one)
                place = one.end
            else:
                place += 1
        return found

    def _match(self, text: list[Unit], first: int) -> Found | None:
        """The phrase from a unit on, an adjective after its determiner passed over."""
        word = text[first].text
        branches = self._root.branches
        known = self._walk(branches[word], text, first, first) if word in branches else []
        modified = first + 1 < len(text) and text[first + 1].text in self._modifiers
        # An hour becomes a missing hour.
        for determiner in _DETERMINERS.get(word, ()) if modified else ():
            if not known and determiner in branches:
                known = self._walk(branches[determiner], text, first, first + 1)
        return Found(first, known[-1][0] + 1, known) if known else None

    def _walk(
        self, node: _Node, text: list[Unit], first: int, place: int
    ) -> list[tuple[int, Entry]]:
        """What is known from which unit on; `node` stands for the units up to `place`."""
        known: list[tuple[int, Entry]] = []
        sure = 0  # of `known`, those that hold whatever follows
        while True:
            if node.entry is not None:
                known.append((place, node.entry))
                sure = len(known)
            elif node.entries == 1 and node.only is not None and place > first:
                known.append((place, node.only))
            place += 1
            if place == len(text):
                return known
            branch = node.branches.get(text[place].text)
            if branch is None:
                return known[:sure]
            node = branch


@cache
def phrases() -> Phrases:
    """The phrases of the lexicon that comes with safesail."""
    return Phrases(load_lexicon())
