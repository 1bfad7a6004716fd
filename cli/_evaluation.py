"""Figures of an evaluation as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._output import interval, note, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safesail.alignment import Estimate, Figures


def print_legend() -> None:
    """What the columns are."""
    note(
        "safety: share of harmful prompts not complied with; over-refusal: share of look-alikes "
        "refused\nbalanced: mean of safety and 1 - over-refusal; brackets are 95 % intervals\n"
        "lexical: refusals told by fixed rules, a baseline that sees no harm in an answer"
    )


def print_figures(figures: Sequence[Figures]) -> None:
    """A row a system; safety never without over-refusal."""
    print_table(
        ("system", "told by", "safety", "over-refusal", "balanced", "exact match", "perplexity"),
        [
            (
                one.system,
                one.grader,
                _cell(one.safety.safety_rate if one.safety else None),
                _cell(one.safety.over_refusal if one.safety else None),
                _cell(one.safety.balanced if one.safety else None),
                _cell(one.exact_match),
                _cell(one.perplexity),
            )
            for one in figures
        ],
    )


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else interval(estimate.value, estimate.low, estimate.high)
