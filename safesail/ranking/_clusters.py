"""Which contrast pairs are one piece of evidence, and halves that keep those together."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from safesail.concepts import ContrastPair

Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]

# A slot of a template takes up to so many words; at least so many others must stand around it.
_SLOT_WORDS = 3
_FRAME_WORDS = 3
# Longer texts share no template by chance, and have too many frames to look at.
_LONGEST_TEMPLATE = 60
# Words; in scripts that put no space between them (Thai, Lao, Myanmar, Khmer, Japanese, Chinese)
# characters.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_NO_SPACES}\U00020000-\U0003ffff]|[^\\W{_NO_SPACES}]+")


def clusters_of_pairs(pairs: Sequence[ContrastPair]) -> Integers:
    """Number the groups of pairs that are no independent evidence, [P].

    Two pairs belong together when they share a text, or were made from one template: they name the
    same `template`, or, where neither names one, both texts of the one are those of the other but
    for one run of up to three words ("I hate trans people" and "I hate women", and their twins).
    What belongs together through a third pair belongs together too. Texts of more than 60 words
    are compared whole only.
    """
    joined = DisjointSet(range(len(pairs)))
    seen: dict[Hashable, int] = {}
    with_positive: dict[str, list[int]] = {}
    framed: dict[Hashable, list[str]] = {}
    for number, pair in enumerate(pairs):
        keys: list[Hashable] = [("text", pair.positive), ("text", pair.negative)]
        if pair.template is not None:
            keys.append(("template", pair.template))
        for key in keys:
            joined.merge(number, seen.setdefault(key, number))
        if pair.template is None:
            with_positive.setdefault(pair.positive, []).append(number)
    for positive in with_positive:
        for frame in _frames(positive):
            framed.setdefault(frame, []).append(positive)
    for group in framed.values():
        if len(group) > 1:  # those with the same positive are joined already
            twins: dict[Hashable, int] = {}
            for number in chain.from_iterable(with_positive[positive] for positive in group):
                for frame in _frames(pairs[number].negative):
                    joined.merge(number, twins.setdefault(frame, number))
    first_of = [joined[number] for number in range(len(pairs))]
    _, numbered = np.unique(first_of, return_inverse=True)
    return numbered


def _frames(text: str) -> Iterator[tuple[str, str]]:
    """What stands before and after each run of one to three words, where that is enough."""
    words = _WORD.findall(text.casefold())
    if len(words) > _LONGEST_TEMPLATE:
        return
    for start in range(len(words)):
        for end in range(start + 1, min(start + _SLOT_WORDS, len(words)) + 1):
            if len(words) - (end - start) >= _FRAME_WORDS:
                yield " ".join(words[:start]), " ".join(words[end:])


def pairs_that_vote(pairs: Sequence[ContrastPair]) -> Bools:
    """Pairs, in their order, that share no text with one before them that votes, [P].

    Four texts against one twin are no four coins: where only a large difference counts, the twin
    is beaten by one of four more often than it beats one. One pair of them is a fair coin.
    """
    taken: set[str] = set()
    votes = np.zeros(len(pairs), dtype=bool)
    for number, pair in enumerate(pairs):
        votes[number] = taken.isdisjoint((pair.positive, pair.negative))
        if votes[number]:
            taken |= {pair.positive, pair.negative}
    return votes


def halve(pairs: Sequence[ContrastPair], clusters: Integers, seed: int) -> Integers:
    """Assign each cluster of pairs to half 0 or 1, evenly within every concept.

    Halves hold about as many pairs, and where a concept has four clusters or more at least two
    each.

    Args:
        pairs: all pairs of the study.
        clusters: cluster of each pair, [P].
        seed: seed of the shuffle.

    Returns:
        Half of each cluster, [number of clusters].
    """
    generator = np.random.default_rng(seed)
    halves = np.full(clusters.max() + 1, -1)
    concepts: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        concepts.setdefault(pair.concept, []).append(int(clusters[number]))
    for members in concepts.values():
        # Large clusters first, each to the emptier half, so that few large ones stay balanced.
        numbers, sizes = np.unique(members, return_counts=True)
        least = min(2, len(numbers) // 2)
        shuffled = generator.permutation(len(numbers))
        pairs_in, clusters_in = np.zeros(2), np.zeros(2)
        for place in (halves[numbers] >= 0).nonzero()[0]:
            pairs_in[halves[numbers[place]]] += sizes[place]
            clusters_in[halves[numbers[place]]] += 1
        for place in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            if halves[numbers[place]] >= 0:
                continue
            tied = pairs_in[0] == pairs_in[1]
            half = int(generator.integers(2)) if tied else int(pairs_in.argmin())
            if clusters_in[half] >= len(numbers) - least and clusters_in[1 - half] < least:
                half = 1 - half  # the other one would be left with too few
            halves[numbers[place]] = half
            pairs_in[half] += sizes[place]
            clusters_in[half] += 1
    return halves


def draw_clusters(strata: Sequence[Hashable], resamples: int, seed: int) -> Integers:
    """How often each resample draws each cluster, [resamples, clusters].

    Clusters are drawn with replacement among those of the same stratum, so that every resample
    keeps the size of each.
    """
    generator = np.random.default_rng(seed)
    draws = np.zeros((resamples, len(strata)), dtype=np.int64)
    members: dict[Hashable, list[int]] = {}
    for cluster, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(cluster)
    for clusters in members.values():
        even = np.full(len(clusters), 1 / len(clusters))
        draws[:, clusters] = generator.multinomial(len(clusters), even, resamples)
    return draws
