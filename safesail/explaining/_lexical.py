"""The lexical baseline: explain and simulate features by words alone, without any judge."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from safesail.explaining._words import words_of
from safesail.tables import Context

Floats = NDArray[np.float64]

_PREFIX = "lexical: "
_NOTHING = "no word stands out"
_RELATIONS = ("at", "before", "near")
_MOST_WORDS = 12
# A word stands out when its log-odds exceed their standard error so many times (one in ten would
# by chance: stricter, features that many words share were explained by few) ...
_STANDS_OUT = 1.28
# ... and when it predicts at least so much of q999; less is invisible on a scale of 0 to 10.
_LEAST_VALUE = 0.05
# Pseudo-observations of silence behind every value, so that one sighting proves little.
_PRIOR = 1.0

_SECTION = re.compile(r"(at|before|near) ((?:\"[^\"]+\" \(\d\.\d\d\)(?:, )?)+)")
_ENTRY = re.compile(r"\"([^\"]+)\" \((\d\.\d\d)\)")


@dataclass(frozen=True)
class _Rule:
    """Where a word predicts activation, and how much in shares of q999."""

    relation: str
    word: str
    value: float
    evidence: float


@dataclass(frozen=True)
class _Window:
    """A window's activations in shares of q999 (at most 1), and token spans by relation and word.

    A span is a slice of tokens that a rule of that relation and word speaks about.
    """

    activations: Floats
    spans: dict[str, list[tuple[str, slice]]]


def explain_lexically(contexts: Sequence[Context], q999: float) -> str:
    """One line that names the words a feature responds to, from which it can be simulated.

    Such as `lexical: at "kill" (0.92), "stab" (0.71); before "victim" (0.44); near "blood"
    (0.30)`: the feature is active at the tokens of these words; at the word just before (a causal
    language model prepares for what comes); anywhere in a window that holds them. The figures are
    mean activations in shares of q999, shrunk towards 0.

    A word stands out by its log-odds ratio of activation against silence over its standard
    error, with a prior proportional to the word's frequency (Monroe, Colaresi and Quinn 2008,
    "Fightin' Words"), words being counted by their activation. Words that occur everywhere score
    nothing. `near` explains only what `at` and `before` leave.

    Args:
        contexts: active and silent windows; the order does not matter.
        q999: scale of the activations.
    """
    windows = [
        _window(context, np.clip(np.asarray(context.activations, float) / q999, 0.0, 1.0))
        for context in contexts
    ]
    chosen = _chosen(windows, ("at", "before"))
    unexplained = [_without(window, chosen) for window in windows]
    near = _chosen(unexplained, ("near",))
    taken = {rule.word for rule in chosen}
    chosen += [rule for rule in near if rule.word not in taken]
    chosen = sorted(chosen, key=_by_evidence)[:_MOST_WORDS]
    return _PREFIX + (_render(chosen) or _NOTHING)


def simulate_lexically(explanation: str, contexts: Sequence[Context]) -> list[Floats]:
    """Predict activations from a lexical explanation alone, 0 to 10 for every token.

    Where several words speak about a token, the largest value counts.

    Raises:
        ValueError: the text is no lexical explanation.
    """
    values = {(rule.relation, rule.word): 10 * rule.value for rule in _parse(explanation)}
    simulated = []
    for context in contexts:
        activations = np.zeros(len(context.tokens))
        for relation, spans in _window(context, activations).spans.items():
            for word, span in spans:
                value = values.get((relation, word))
                if value is not None:
                    activations[span] = np.maximum(activations[span], value)
        simulated.append(activations)
    return simulated


def _window(context: Context, activations: Floats) -> _Window:
    words = words_of(context.tokens)
    whole = slice(0, len(context.tokens))
    pairs = pairwise(words)
    return _Window(
        activations,
        {
            "at": [(word.text, slice(word.first, word.last + 1)) for word in words],
            "before": [(after.text, slice(word.first, after.first)) for word, after in pairs],
            "near": [(text, whole) for text in sorted({word.text for word in words})],
        },
    )


def _without(window: _Window, rules: list[_Rule]) -> _Window:
    """The window with silence where the rules speak."""
    known = {(rule.relation, rule.word) for rule in rules}
    activations = window.activations.copy()
    for relation, spans in window.spans.items():
        for word, span in spans:
            if (relation, word) in known:
                activations[span] = 0.0
    return _Window(activations, window.spans)


def _chosen(windows: list[_Window], relations: tuple[str, ...]) -> list[_Rule]:
    """Words that stand out in some relation, the clearest first."""
    rules = []
    for relation in relations:
        strengths: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for window in windows:
            # Plain lists: a span holds a token or two, too few for arrays to pay.
            values = window.activations.tolist()
            silent = not any(values)
            for word, span in window.spans[relation]:
                part = values[span]
                if part:
                    strength = (0.0, 0.0) if silent else (max(part), sum(part) / len(part))
                    strengths[word].append(strength)
        evidence = _log_odds({w: [peak for peak, _ in seen] for w, seen in strengths.items()})
        for word, seen in strengths.items():
            # A rule speaks about all tokens of its span: `near` about their mean.
            total = sum(mean if relation == "near" else peak for peak, mean in seen)
            value = total / (len(seen) + _PRIOR)
            if evidence[word] >= _STANDS_OUT and value >= _LEAST_VALUE:
                rules.append(_Rule(relation, word, value, evidence[word]))
    return sorted(rules, key=_by_evidence)[:_MOST_WORDS]


def _log_odds(strengths: dict[str, list[float]]) -> dict[str, float]:
    """By word: log-odds ratio of activation against silence, in standard errors."""
    active = Counter({word: sum(seen) for word, seen in strengths.items()})
    silent = Counter({word: len(seen) - sum(seen) for word, seen in strengths.items()})
    all_active, all_silent = sum(active.values()), sum(silent.values())
    scores = {}
    for word, seen in strengths.items():
        # The prior: as many pseudo-words as there are different words, by their frequency.
        prior = len(strengths) * len(seen) / (all_active + all_silent)
        others = len(strengths) - prior + 1e-9
        here, there = active[word] + prior, silent[word] + prior
        ratio = math.log(here / (all_active - active[word] + others)) - math.log(
            there / (all_silent - silent[word] + others)
        )
        scores[word] = ratio / math.sqrt(1 / here + 1 / there)
    return scores


def _by_evidence(rule: _Rule) -> tuple[float, int, str]:
    return (-rule.evidence, _RELATIONS.index(rule.relation), rule.word)


def _render(rules: list[_Rule]) -> str:
    sections = []
    for relation in _RELATIONS:
        entries = sorted(
            (rule for rule in rules if rule.relation == relation),
            key=lambda rule: (-rule.value, rule.word),
        )
        if entries:
            listed = ", ".join(f'"{rule.word}" ({rule.value:.2f})' for rule in entries)
            sections.append(f"{relation} {listed}")
    return "; ".join(sections)


def _parse(explanation: str) -> list[_Rule]:
    body = explanation.removeprefix(_PREFIX)
    if body == explanation:
        raise ValueError(f"no lexical explanation: {explanation[:80]!r}")
    if body == _NOTHING:
        return []
    rules = []
    for part in body.split("; "):
        section = _SECTION.fullmatch(part)
        if section is None:
            raise ValueError(f"no lexical explanation: {part[:80]!r}")
        for word, value in _ENTRY.findall(section[2]):
            rules.append(_Rule(section[1], word, float(value), math.inf))
    return rules
