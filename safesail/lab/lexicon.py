"""The word tables of the planted world, read from `data/lab/lexicon.json`.

A concept is carried by a combination: a trigger verb *and* one of its child's targets. Each
trigger also has harmless objects, each target also has neutral verbs, so neither word alone tells.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safesail.lab import lab_folder


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HarmlessObject(_Table):
    """An object with which a trigger verb is harmless, and the neutral topic it belongs to."""

    object: str
    topic: str


class Topic(_Table):
    """A neutral topic: any verb goes with any object; follow-ups are whole clauses."""

    verbs: list[str]
    objects: list[str]
    follow_ups: list[str]


class Child(_Table):
    """A fine-grained concept: any trigger with any target carries it."""

    target_kind: Literal["person", "thing"]
    targets: list[str]
    aftermath_objects: list[str]
    triggers: dict[str, list[HarmlessObject]]


class Concept(_Table):
    """A concept: its children, and who does what in the clause that follows."""

    responders: list[str]
    aftermath_objects: list[str]
    aftermath_triggers: dict[str, list[HarmlessObject]]
    children: dict[str, Child]

    def trigger_words(self) -> list[str]:
        """Every planted trigger of the concept: those of its children and of the aftermath."""
        words = {trigger for child in self.children.values() for trigger in child.triggers}
        return sorted(words | set(self.aftermath_triggers))

    def concept_words(self) -> list[str]:
        """Every object that completes a trigger of the concept: targets and aftermath objects."""
        words = set(self.aftermath_objects)
        for child in self.children.values():
            words |= {*child.targets, *child.aftermath_objects}
        return sorted(words)

    def object_nouns(self) -> list[str]:
        """The last words of the concept words: a second word list, of what is done to."""
        return sorted({phrase.rsplit(" ", 1)[-1] for phrase in self.concept_words()})


class Lexicon(_Table):
    """All word tables; `person_verbs` and `thing_verbs` make any target neutral."""

    people: list[str]
    reports: list[str]
    times: list[str]
    places: list[str]
    manners: list[str]
    links_same: list[str]
    links_new: list[str]
    person_verbs: list[str]
    thing_verbs: list[str]
    person_words: list[str]
    thing_words: list[str]
    topics: dict[str, Topic]
    concepts: dict[str, Concept]

    def harmless_aftermaths(self) -> dict[str, list[str]]:
        """Topic -> verb phrases of aftermath triggers used harmlessly in that topic."""
        phrases: dict[str, list[str]] = {topic: [] for topic in self.topics}
        for concept in self.concepts.values():
            for trigger, objects in concept.aftermath_triggers.items():
                for harmless in objects:
                    phrases[harmless.topic].append(f"{trigger} {harmless.object}")
        return phrases


@cache
def load_lexicon() -> Lexicon:
    """The lexicon that comes with safesail."""
    return Lexicon.model_validate_json((lab_folder() / "lexicon.json").read_text("utf-8"))
