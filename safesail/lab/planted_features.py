"""Features whose truth is known because the lab planted it: what a judge is qualified on.

Such a feature is active in the clauses that carry a concept, from the verb to the end, and nowhere
else: before the verb no reader could know. Texts and labels are the lab's held-out ones, so neither
a language model nor an SAE is needed.

A window is active if it shows the concept: of a clause that carries it, a trigger and an object
that belong to it lie in the window. Where the window's border cuts one of them off, or where only
the clause before tells which child of the concept is meant, nobody could tell from the window, and
it is left out.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

from safesail.contexts import WINDOW_TOKENS, split_of
from safesail.errors import ConfigurationError
from safesail.explaining import FeatureEvidence, PlantedFeature
from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.documents import Document
from safesail.tables import Context

SAE = "planted"
"""Name of the SAE that the features seem to be of."""

# As many windows a split as a study collects by default.
_WINDOWS = {"active": 50, "silent": 25, "hard_silent": 25}
_LEVEL = 10
# Words of each kind that a description names.
_EXAMPLES = 4
_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])")
_DETERMINERS = {"a": "an?", "an": "an?"}

Kind = Literal["active", "silent", "hard_silent"]


@dataclass(frozen=True)
class _Words:
    """What a concept or a child is told by.

    Attributes:
        triggers: verbs of its own.
        objects: what completes them.
        trigger: any verb of the whole concept, its aftermath's included.
        object: any of `objects`, an adjective after the determiner passed over.
        either: a trigger of its own or an object.
    """

    triggers: list[str]
    objects: list[str]
    trigger: re.Pattern[str]
    object: re.Pattern[str]
    either: re.Pattern[str]


class _Part(NamedTuple):
    """What of a clause lies in a window.

    Attributes:
        concept: that the clause carries.
        first: its first token.
        verb: the first token from which on a feature of the concept is active; `end` where it
            comes later.
        end: the token after its last.
        text: of its tokens.
    """

    concept: str
    first: int
    verb: int
    end: int
    text: str


@dataclass(frozen=True)
class _Window:
    """A window with what its clauses carry.

    Attributes:
        document: that it lies in.
        start: place of its first token there.
        tokens: its text, token by token.
        parts: of the clauses that it holds or cuts.
    """

    document: str
    start: int
    tokens: list[str]
    parts: list[_Part]


def planted_features(count: int = 16) -> list[PlantedFeature]:
    """Features of the lab's concepts and their children, the concepts first.

    Args:
        count: how many, 1 to 32.

    Raises:
        ConfigurationError: there are not so many.
    """
    names = _names()
    if not 1 <= count <= len(names):
        raise ConfigurationError(f"the lab has 1 to {len(names)} planted features, not {count}")
    return [_feature(number, name) for number, name in enumerate(names[:count])]


def tokens_of(text: str) -> list[str]:
    """Words and marks of a text, each with the space before it; joined they are the text."""
    tokens = [found[0] for found in _TOKEN.finditer(text)]
    rest = text[sum(map(len, tokens)) :]  # space at the end
    return [*tokens[:-1], tokens[-1] + rest] if tokens else [rest] * bool(rest)


def _names() -> list[str]:
    """Concepts, then a child of each in turn: any first few are spread over the concepts."""
    concepts = [name for name in _vocabulary() if "/" not in name]
    return [*concepts, *(name for of_turn in zip(*map(_children, concepts), strict=True)
                         for name in of_turn)]  # fmt: skip


def _children(concept: str) -> list[str]:
    return [name for name in _vocabulary() if name.startswith(f"{concept}/")]


def _other(number: int) -> str:
    """A child of the concept after that of the feature with this number."""
    concepts = [name for name in _vocabulary() if "/" not in name]
    turn, place = divmod(number, len(concepts))
    children = _children(concepts[(place + 1) % len(concepts)])
    return children[turn % len(children)]


def _feature(number: int, name: str) -> PlantedFeature:
    other = _other(number)
    contexts: list[Context] = []
    taken: Counter[tuple[str, str]] = Counter()
    for window in _windows():
        # Where both occur, the wrong description would be half right.
        kind = None if _carried(window, other) else _kind(window, name)
        split = split_of(window.document)
        if kind is not None and taken[split, kind] < _WINDOWS[kind]:
            taken[split, kind] += 1
            contexts.append(_context(window, number, name, kind))
    evidence = FeatureEvidence(SAE, 0, number, 1.0, [name], contexts, "collected")
    return PlantedFeature(name, evidence, _description(name), _description(other))


def _description(name: str) -> str:
    """A plain and true description of the feature of a concept or a child."""
    words = _vocabulary()[name]
    quoted = ", ".join(f'"{word}"' for word in _spread(words.triggers))
    objects = ", ".join(f'"{word}"' for word in _spread(words.objects))
    return (
        f"Active in clauses about {name} (what is done, and what comes of it), from verbs such as "
        f"{quoted} to the end, with objects such as {objects}; silent elsewhere, even where one of "
        "these words stands in a harmless clause."
    )


def _spread(words: Sequence[str]) -> list[str]:
    """A few words, from all over an alphabetical list."""
    count = min(_EXAMPLES, len(words))
    return [words[place * len(words) // count] for place in range(count)]


def _carried(window: _Window, name: str) -> list[_Part]:
    """The parts that carry a concept or a child."""
    return [p for p in window.parts if p.concept == name or p.concept.startswith(f"{name}/")]


def _kind(window: _Window, name: str) -> Kind | None:
    """What the window is for a feature; None where that cannot be told from it."""
    carried = _carried(window, name)
    if carried:
        return "active" if any(_is_plain(part, name) for part in carried) else None
    siblings = _carried(window, name.partition("/")[0])
    if not all(_is_plain(part, part.concept) for part in siblings):
        return None
    text = "".join(window.tokens)
    return "hard_silent" if _vocabulary()[name].either.search(text) else "silent"


def _is_plain(part: _Part, name: str) -> bool:
    """Whether a clause's part alone tells what it carries."""
    words = _vocabulary()[name]
    return bool(words.trigger.search(part.text) and words.object.search(part.text))


def _context(window: _Window, number: int, name: str, kind: Kind) -> Context:
    activations = [0.0] * len(window.tokens)
    peak_at = 0
    for part in reversed(_carried(window, name)):
        activations[part.verb : part.end] = [1.0] * (part.end - part.verb)
        # All tokens are as active as the peak; it is put where the clause has told what it is.
        if _is_plain(part, name):
            found = list(_vocabulary()[name].object.finditer(part.text))[-1]
            ends = accumulate(len(token) for token in window.tokens[part.first : part.end])
            peak_at = part.first + sum(end < found.end() for end in ends)
    return Context(
        sae=SAE,
        layer=0,
        feature=number,
        split=split_of(window.document),  # type: ignore[arg-type]
        kind=kind,
        level=_LEVEL if kind == "active" else 0,
        sample="random",
        document=window.document,
        start=window.start,
        tokens=window.tokens,
        token_ids=[_token_ids()[token] for token in window.tokens],
        activations=activations,
        peak=max(activations),
        peak_at=peak_at,
        weight=1.0,
    )


@cache
def _windows() -> list[_Window]:
    """All windows of the held-out documents, in order."""
    documents = read_heldout(lab_folder() / "heldout.parquet")
    return [window for document in documents for window in _tiled(document)]


@cache
def _token_ids() -> dict[str, int]:
    tokens = {token for window in _windows() for token in window.tokens}
    return {token: number for number, token in enumerate(sorted(tokens))}


def _tiled(document: Document) -> Iterator[_Window]:
    """Windows that tile a document, of lengths as equal as can be."""
    tokens = tokens_of(document.text)
    edges = list(accumulate(map(len, tokens), initial=0))
    # The space before a word is its token's, so a token lies in the clause that it ends in.
    ends = edges[1:]
    spans = []
    for clause in document.clauses:
        if clause.concept:
            text = document.text[clause.start : clause.end]
            verb = _vocabulary()[clause.concept].trigger.search(text)
            told = clause.start + (verb.start() if verb else 0)
            places = [bisect_right(ends, place) for place in (clause.start, told, clause.end)]
            spans.append((clause.concept, places))
    count = -(-len(tokens) // WINDOW_TOKENS)
    for number in range(count):
        start, end = number * len(tokens) // count, (number + 1) * len(tokens) // count
        parts = []
        for concept, places in spans:
            first, told, last = (min(max(place, start), end) for place in places)
            if first < last:
                text = "".join(tokens[first:last])
                parts.append(_Part(concept, first - start, told - start, last - start, text))
        yield _Window(document.name, start, tokens[start:end], parts)


@cache
def _vocabulary() -> dict[str, _Words]:
    """What each concept and each child is told by, by name."""
    table = json.loads((lab_folder() / "vocabulary.json").read_text("utf-8"))
    found = {}
    for name, concept in table.items():
        triggers = concept["triggers"]
        found[name] = _words(triggers, triggers, concept["concept_words"])
        for child, own in concept["children"].items():
            path = f"{name}/{child}"
            found[path] = _words(own["triggers"], triggers, own["concept_words"])
    return found


def _words(own: list[str], triggers: list[str], objects: list[str]) -> _Words:
    return _Words(
        own,
        objects,
        trigger=_any_of(map(re.escape, triggers)),
        object=_any_of(map(_with_adjective, objects)),
        either=_any_of([*map(re.escape, own), *map(_with_adjective, objects)]),
    )


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


def _with_adjective(phrase: str) -> str:
    """A phrase of a determiner and a noun, which may have an adjective between them."""
    determiner, _, rest = phrase.partition(" ")
    first = _DETERMINERS.get(determiner, re.escape(determiner))
    return rf"{first} (?:[\w-]+ )?{re.escape(rest)}" if rest else first
