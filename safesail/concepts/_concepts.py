"""Contrast pairs and the tree of concepts over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from safesail.errors import InputError

# Twins may differ by so many words, whatever the ratio: "no" against "no, not at all" is no fault.
_EVEN_WORDS = 5


@dataclass(frozen=True)
class ContrastPair:
    """Two texts alike but for the concept."""

    concept: str
    """Name, or `parent/child`."""

    positive: str
    """The text that carries the concept."""

    negative: str
    """Its twin, which does not."""

    where: str = ""
    """File and row it came from, for messages."""

    template: str | None = None
    """Name of the template it was filled in from; pairs of one template are one evidence."""

    @property
    def is_uneven(self) -> bool:
        """Whether one text is so much longer than the other that length tells them apart."""
        short, long = sorted((len(self.positive.split()), len(self.negative.split())))
        return long > 2 * short and long - short > _EVEN_WORDS


class ConceptSet:
    """Concepts as a tree; a parent owns its own pairs and those of all its children.

    Attributes:
        pairs: every pair once, in the order given.
        names: every concept, parents before their children, else in order of first appearance.
    """

    def __init__(self, pairs: Iterable[ContrastPair]) -> None:
        unique: dict[tuple[str, str, str], ContrastPair] = {}
        for pair in pairs:
            unique.setdefault((pair.concept, pair.positive, pair.negative), pair)
        self.pairs = tuple(unique.values())
        self.names = tuple(_in_tree_order(pair.concept for pair in self.pairs))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def top_level(self) -> tuple[str, ...]:
        """Concepts without a parent."""
        return tuple(name for name in self.names if "/" not in name)

    def branch(self, name: str) -> frozenset[str]:
        """The concept, its ancestors and its descendants: all that share texts with it."""
        return frozenset(
            other
            for other in self.names
            if other == name or other.startswith(f"{name}/") or name.startswith(f"{other}/")
        )

    def pair_numbers(self, name: str) -> list[int]:
        """Indices into `pairs` of the concept's own pairs and its descendants'."""
        return [
            number
            for number, pair in enumerate(self.pairs)
            if pair.concept == name or pair.concept.startswith(f"{name}/")
        ]

    def select(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Check names that a user asks for; none asked for means all.

        Raises:
            InputError: a name is not among the concepts.
        """
        chosen = tuple(dict.fromkeys(wanted))
        for name in chosen:
            if name not in self.names:
                raise InputError(
                    f"concept {name!r} has no pairs in this study; "
                    f"known: {', '.join(self.names) or 'none'}"
                )
        return chosen or self.names

    def fingerprint(self) -> str:
        """Digest of every pair: 16 hex digits."""
        digest = hashlib.sha256()
        for pair in sorted(self.pairs, key=lambda p: (p.concept, p.positive, p.negative)):
            parts = [pair.concept, pair.positive, pair.negative]
            if pair.template is not None:
                parts.append(pair.template)
            for part in parts:
                digest.update(part.encode() + b"\0")
        return digest.hexdigest()[:16]


def _in_tree_order(leaves: Iterable[str]) -> list[str]:
    """Names with all their ancestors, each once, depth first."""
    first_seen: dict[str, int] = {}
    for leaf in leaves:
        parts = leaf.split("/")
        for depth in range(1, len(parts) + 1):
            first_seen.setdefault("/".join(parts[:depth]), len(first_seen))

    def key(name: str) -> list[int]:
        parts = name.split("/")
        return [first_seen["/".join(parts[:depth])] for depth in range(1, len(parts) + 1)]

    return sorted(first_seen, key=key)
