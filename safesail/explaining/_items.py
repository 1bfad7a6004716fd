"""Short items: one segment of a window with a little text before it, many to a prompt."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from safesail.explaining._evidence import FeatureEvidence, shuffled
from safesail.explaining._mixture import KIND_SHARES
from safesail.tables import Context

SEGMENT_TOKENS = 6
LEFT_TOKENS = 6

# The first prompt is the largest: what a good judge needs for a half-width of 0.10, most often.
_FIRST_PROMPT, _LATER_PROMPT, _MOST_PROMPTS = 56, 40, 4
# A rest of so few windows is not worth a prompt's instructions.
_FEWEST_ITEMS = 12


@dataclass(frozen=True)
class Item:
    """One window's item.

    Attributes:
        context: the window.
        text: `left⟪segment⟫`, at most six tokens each.
        truth: the segment's largest true activation.
    """

    context: Context
    text: str
    truth: float


def unmarked(text: str) -> str:
    """Text of a window without the brackets that mark things in prompts, so none is forged."""
    return text.replace("⟪", "«").replace("⟫", "»")


def prompt_sizes(windows: int, prompts: int | None = None) -> list[int]:
    """Items of each prompt: 56, then 40 each, at most four prompts.

    Args:
        windows: how many there are.
        prompts: so many prompts of equal size instead, at most 40 items each.
    """
    if prompts is not None:
        each = min(_LATER_PROMPT, windows // prompts)
        return [each] * prompts if each else [1] * windows
    sizes: list[int] = []
    while len(sizes) < _MOST_PROMPTS:
        size = min(_LATER_PROMPT if sizes else _FIRST_PROMPT, windows - sum(sizes))
        if size == 0 or (sizes and size < _FEWEST_ITEMS):
            break
        sizes.append(size)
    return sizes


def draw_items(evidence: FeatureEvidence, sizes: Sequence[int], seed: int) -> list[list[Item]]:
    """Items of each prompt, drawn from the score split without replacement.

    Half are active, evenly over the levels that occur, a quarter silent, a quarter hard silent,
    as far as there are windows, and every prompt has the same make-up. What is drawn depends on
    the seed, the feature's name and the sizes alone.
    """
    windows = shuffled(evidence.to_score(), evidence.name, seed)
    queues = {
        kind: deque(_in_turn([one for one in windows if one.kind == kind])) for kind in KIND_SHARES
    }
    lengths = {kind: len(queue) for kind, queue in queues.items()}
    used = Counter(_dealt(sum(sizes), KIND_SHARES, lengths))
    kinds = iter(_dealt(sum(sizes), used, used))
    places = [one.peak_at / len(one.tokens) for one in windows if one.kind == "active"]
    rng = random.Random(f"items/{seed}/{evidence.name}")
    prompts = []
    for size in sizes:
        drawn = [queues[kind].popleft() for kind in islice(kinds, size)]
        rng.shuffle(drawn)
        prompts.append([_item(context, places, rng) for context in drawn])
    return prompts


def _in_turn(windows: Sequence[Context]) -> list[Context]:
    """Windows with their levels taking turns, so that any first few are even over them."""
    turn: Counter[int] = Counter()
    turns = []
    for window in windows:
        turn[window.level] += 1
        turns.append(turn[window.level])
    first = {level: place for place, level in enumerate(dict.fromkeys(w.level for w in windows))}
    order = sorted(range(len(windows)), key=lambda i: (turns[i], first[windows[i].level]))
    return [windows[i] for i in order]


def _dealt(count: int, shares: Mapping[str, float], most: Mapping[str, int]) -> list[str]:
    """Kinds in a sequence of which any stretch holds the shares, as far as there are so many."""
    taken = dict.fromkeys(shares, 0)
    dealt = []
    for _ in range(min(count, sum(most.values()))):
        left = [kind for kind in shares if taken[kind] < most[kind]]
        dealt.append(min(left, key=lambda kind: (taken[kind] + 0.5) / shares[kind]))
        taken[dealt[-1]] += 1
    return dealt


def _item(context: Context, places: Sequence[float], rng: random.Random) -> Item:
    """Cut an item out of a window.

    The segment of an active window holds the peak anywhere. That of a silent one is placed as if
    it had a peak where some active window has its own, so that the place tells nothing.
    """
    count = len(context.tokens)
    if context.kind == "active":
        peak = context.peak_at
    else:
        peak = min(int(rng.choice(places) * count), count - 1) if places else rng.randrange(count)
    length = min(SEGMENT_TOKENS, count)
    start = rng.randint(max(0, peak - length + 1), min(peak, count - length))
    end = start + length
    left = "".join(context.tokens[max(0, start - LEFT_TOKENS) : start])
    segment = "".join(context.tokens[start:end])
    return Item(
        context,
        f"{unmarked(left)}⟪{unmarked(segment)}⟫",
        max(context.activations[start:end]),
    )
