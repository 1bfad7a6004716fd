"""Texts with planted activations, and what must be kept of them, found by looking at everything."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safesail.contexts._sketch import Sketch, SketchSettings
from safesail.contexts._windows import ContentTokens, Windows, split_of
from safesail.language_model import TokenBatch, TokenizedText
from safesail.study import CollectionSettings

FEATURES = (3, 8, 1000)


@dataclass(frozen=True)
class Planted:
    """Texts, what fires on them, float32 [tokens, features] each, and which tokens count."""

    texts: list[TokenizedText]
    activations: list[NDArray[np.float32]]
    content: list[NDArray[np.bool_]]


def plant(
    seed: int, documents: int, *, longest: int = 90, features: int = len(FEATURES)
) -> Planted:
    """Documents of random lengths on which features fire now and then, with heavy tails."""
    generator = np.random.default_rng(seed)
    texts, activations, content = [], [], []
    densities = np.array([0.02, 0.3, 0.002, *[0.05] * features])[:features]
    for number in range(documents):
        tokens = int(generator.integers(1, longest))
        ids = generator.integers(0, 400, tokens)
        name = f"{seed}/{number}"
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        strings = [f"t{i} " for i in ids]
        texts.append(TokenizedText(name, 0, ids.tolist(), strings, None, key))
        fires = generator.random((tokens, features)) < densities * (1 + 5 * (ids[:, None] < 8))
        values = generator.lognormal(0, 1, (tokens, features))
        counted = generator.random(tokens) < 0.95
        activations.append((fires * values * counted[:, None]).astype(np.float32))
        content.append(counted)
    return Planted(texts, activations, content)


def feed(sketch: Sketch, planted: Planted, numbers: Sequence[int], batch: int = 7) -> Sketch:
    """Show a sketch some of the texts, a few at a time."""
    for begin in range(0, len(numbers), batch):
        part = numbers[begin : begin + batch]
        texts = [planted.texts[n] for n in part]
        width = max(len(text.token_ids) for text in texts)
        content = torch.zeros(len(texts), width, dtype=torch.bool)
        attention = torch.zeros_like(content)
        for row, number in enumerate(part):
            counted = planted.content[number]
            attention[row, : len(counted)] = True
            content[row, : len(counted)] = torch.from_numpy(counted)
        batched = TokenBatch(texts, torch.zeros(len(texts), width).long(), attention, content, 0)
        windows = Windows.of(texts)
        encoded = np.concatenate([planted.activations[n][planted.content[n]] for n in part])
        sketch.add(
            texts, windows, ContentTokens.of(batched, windows, content), torch.from_numpy(encoded)
        )
    return sketch


def sketch_of(
    planted: Planted,
    settings: SketchSettings,
    numbers: Sequence[int] | None = None,
    *,
    features: Sequence[int] = FEATURES,
    batch: int = 7,
) -> Sketch:
    """A sketch that has seen all of the texts, or some."""
    if numbers is None:
        numbers = range(len(planted.texts))
    return feed(Sketch(features, settings), planted, list(numbers), batch)


def brute_force(
    planted: Planted,
    sketch: SketchSettings,
    settings: CollectionSettings,
    features: Sequence[int] = FEATURES,
) -> dict[int, dict[str, Any]]:
    """Statistics and contexts of every feature from all activations at once, in plain Python.

    The definitions of docs/collecting.md, with nothing of the code
    under test but the windows' keys.
    """
    windows = Windows.of(planted.texts)
    found = {}
    for column, feature in enumerate(features):
        every = []
        values: list[float] = []
        for number in range(len(windows)):
            text = int(windows.text[number])
            span = slice(
                int(windows.first[number]), int(windows.first[number] + windows.length[number])
            )
            counted = planted.content[text][span]
            if not counted.any():
                continue
            acts = planted.activations[text][span, column]
            values += [float(a) for a in acts if a > 0]
            every.append(
                {
                    "document": planted.texts[text].document,
                    "start": planted.texts[text].start + span.start,
                    "ids": planted.texts[text].token_ids[span],
                    "activations": acts.tolist(),
                    "peak": float(acts.max()),
                    "split": split_of(planted.texts[text].document),
                    "priority": _priority(int(windows.key[number]), f"{feature}\0{sketch.seed}"),
                    "common": _priority(int(windows.key[number]), f"windows\0{sketch.seed}"),
                }
            )  # fmt: skip
        found[feature] = {
            "values": sorted(values),
            "windows": every,
            **_choose(every, values, sketch, settings),
        }
    return found


def _choose(
    every: list[dict[str, Any]],
    values: list[float],
    sketch: SketchSettings,
    settings: CollectionSettings,
) -> dict[str, Any]:
    if not values:
        return {"q999": 0.0, "rows": []}
    q999 = _q999(values)
    explaining: dict[tuple[str, int], dict[str, Any]] = {}
    rows = []
    for split in ("explain", "score"):
        active = [w for w in every if w["split"] == split and w["peak"] > 0]
        top = sorted(active, key=lambda w: (-w["peak"], w["priority"]))[: settings.top]
        chosen = [(split, "active", level_of(w["peak"], q999), "top", math.nan, w) for w in top]
        for level in range(1, 11):
            members = [w for w in active if level_of(w["peak"], q999) == level]
            drawn = sorted(members, key=lambda w: w["priority"])[: settings.per_level]
            chosen += [
                (split, "active", level, "random", len(members) / len(drawn), w) for w in drawn
            ]
        rows += chosen
        if split == "explain":
            explaining = {(w["document"], w["start"]): w for *_, w in chosen}
    typical = _typical(list(explaining.values()))
    for split in ("explain", "score"):
        mine = sorted((w for w in every if w["split"] == split), key=lambda w: w["common"])
        sample = [w for w in mine[: sketch.silent_sample] if w["peak"] == 0]
        silent = sum(w["peak"] == 0 for w in mine)
        for kind, limit in (("silent", settings.silent), ("hard_silent", settings.hard_silent)):
            stratum = [
                w for w in sample if bool(typical & set(w["ids"])) == (kind == "hard_silent")
            ]
            drawn = sorted(stratum, key=lambda w: w["priority"])[:limit]
            for window in drawn:
                weight = silent / len(sample) * len(stratum) / len(drawn)
                rows.append((split, kind, 0, "random", weight, window))
    return {"q999": q999, "rows": rows}


def _typical(kept: list[dict[str, Any]]) -> set[int]:
    totals: dict[int, float] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    for window in kept:
        for token, value in zip(window["ids"], window["activations"], strict=True):
            totals[token] += value
            counts[token] += 1
    order = sorted(totals, key=lambda t: (-totals[t] / (counts[t] + 2), t))
    return {token for token in order[:10] if totals[token] > 0}


def _bin(value: float, parts: int) -> int:
    """Octaves above 2^-20 in equal parts."""
    fraction, exponent = math.frexp(value)
    number = (exponent - 1 + 20) * parts + math.floor((2 * fraction - 1) * parts)
    return min(max(number, 0), 40 * parts - 1)


def _edge(number: int, parts: int) -> float:
    octave, part = divmod(number, parts)
    return 2.0 ** (octave - 20) * (1 + part / parts)


def _q999(values: list[float]) -> float:
    values = sorted(values)
    if len(values) < 1000:
        return values[-1]
    place = 0.999 * (len(values) - 1)
    middles = [
        (_edge(_bin(values[n], 32), 32) + _edge(_bin(values[n], 32) + 1, 32)) / 2
        for n in (math.floor(place), math.ceil(place))
    ]
    share = place - math.floor(place)
    return min(middles[0] * (1 - share) + middles[1] * share, values[-1])


def level_of(peak: float, q999: float) -> int:
    """How many of the nine borders, each moved to the nearest edge of a bin, a peak reaches."""
    level = 1
    for tenth in range(1, 10):
        wanted = q999 * tenth / 10
        below = _edge(_bin(wanted, 16), 16)
        above = _edge(_bin(wanted, 16) + 1, 16)
        level += peak >= (below if wanted - below < above - wanted else above)
    return level


def _priority(key: int, name: str) -> int:
    """SplitMix64's output function on Python's unbounded integers, and the last bit dropped."""
    mask = (1 << 64) - 1
    salt = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    x = ((key & mask) ^ salt) + 0x9E3779B97F4A7C15 & mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return (x ^ x >> 31) >> 1
