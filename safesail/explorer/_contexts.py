"""A feature's contexts as pages show them: few of each kind, tokens marked by activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from safesail.explorer._text import visible
from safesail.tables import Context

_LONGEST_TOKEN = 200
_LONGEST_TEXT = 20_000


@dataclass(frozen=True)
class Shown:
    """How many contexts are shown; None for all.

    Attributes:
        strongest: of the strongest.
        per_level: of those drawn from each activation level.
        silent: of each kind of silent ones.
    """

    strongest: int | None = 12
    per_level: int | None = 1
    silent: int | None = 5


FEW, EVERY = Shown(), Shown(None, None, None)


@dataclass(frozen=True)
class ContextGroup:
    """Contexts of one kind.

    Attributes:
        title: what they are.
        contexts: those shown.
        total: how many there are.
    """

    title: str
    contexts: list[Context]
    total: int


def context_groups(contexts: Sequence[Context], shown: Shown) -> list[ContextGroup]:
    """The strongest contexts, some drawn from each level, and silent ones."""
    top = _distinct(sorted((c for c in contexts if c.sample == "top"), key=lambda c: -c.peak))
    drawn = [c for c in contexts if c.sample == "random" and c.kind == "active"]
    drawn.sort(key=lambda c: (-c.level, -c.peak))
    levels = [list(of) for _, of in groupby(drawn, key=lambda c: c.level)]
    middle = [context for of in levels for context in of[: shown.per_level]]
    hard = [c for c in contexts if c.kind == "hard_silent"]
    quiet = [c for c in contexts if c.kind == "silent"]
    groups = [
        ContextGroup("Strongest", top[: shown.strongest], len(top)),
        ContextGroup("Drawn from each level", middle, len(drawn)),
        ContextGroup("Silent though its words occur", hard[: shown.silent], len(hard)),
        ContextGroup("Silent", quiet[: shown.silent], len(quiet)),
    ]
    return [group for group in groups if group.contexts]


def marked_tokens(context: Context) -> Markup:
    """The context's text as HTML: tokens where the feature fires in `<mark>`, by level.

    The class is `a1` to `a10`, tenths of the strongest activation of the context's feature as the
    context's level has it; the number stands in the title.
    """
    # The context's level says what share of q999 its peak reaches.
    scale = max(context.level, 1) / context.peak if context.peak > 0 else 0.0
    parts: list[str] = []
    plain: list[str] = []
    for token, activation in zip(context.tokens, context.activations, strict=True):
        if activation <= 0:
            plain.append(token)
            continue
        parts += [_text("".join(plain)), _mark(token, activation, activation * scale)]
        plain.clear()
    parts.append(_text("".join(plain)))
    return Markup("".join(parts))


def marked_snippet(text: str, opening: str, closing: str) -> Markup:
    """A snippet of the search as HTML: what was found in `<mark>`."""
    parts = text.replace(closing, opening).split(opening)
    # Marks come in pairs: every second part was found.
    return Markup("").join(
        Markup("<mark>{}</mark>").format(visible(part)) if place % 2 else escape(visible(part))
        for place, part in enumerate(parts)
    )


def _mark(token: str, activation: float, level: float) -> str:
    tenths = min(10, max(1, round(level)))
    return f'<mark class="a{tenths}" title="{activation:.3g}">{_text(token, _LONGEST_TOKEN)}</mark>'


def _text(text: str, longest: int = 1_000) -> str:
    """Escaped text; of one without end the beginning, and the rest on demand."""
    if len(text) <= longest:
        return str(escape(visible(text)))
    rest = text[longest:_LONGEST_TEXT]
    return (
        f"{escape(visible(text[:longest]))}<details><summary>{len(text):,} characters</summary>"
        f"{escape(visible(rest))}{'…' if len(text) > _LONGEST_TEXT else ''}</details>"
    )


def _distinct(contexts: list[Context]) -> list[Context]:
    """Contexts whose text has not come yet."""
    found: dict[str, Context] = {}
    for context in contexts:
        found.setdefault("".join(context.tokens), context)
    return list(found.values())
