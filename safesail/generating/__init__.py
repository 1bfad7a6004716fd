"""Contrast pairs that a judge writes: checked, shown for review, and accepted by a person."""

from safesail.generating._checks import PairChecks
from safesail.generating._generate import GeneratedPairs, generate_pairs
from safesail.generating._naming import require_name
from safesail.generating._pairs import CheckedPair, Remark
from safesail.generating._review import (
    REVIEW_ENDING,
    Review,
    read_review,
    write_lines,
    write_review,
)
from safesail.generating._set_report import SetReport, Telltale, report_on

__all__ = [
    "REVIEW_ENDING",
    "CheckedPair",
    "GeneratedPairs",
    "PairChecks",
    "Remark",
    "Review",
    "SetReport",
    "Telltale",
    "generate_pairs",
    "read_review",
    "report_on",
    "require_name",
    "write_lines",
    "write_review",
]
