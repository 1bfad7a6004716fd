"""Contrast pairs that a judge writes: checked, shown for review, and accepted by a person."""

from safesail.generating._generate import GeneratedPairs, generate_pairs
from safesail.generating._pairs import CheckedPair, Remark
from safesail.generating._review import Review, read_review, write_review
from safesail.generating._set_report import SetReport, Telltale, report_on
from safesail.generating._stage import Accepted, accept, generate

__all__ = [
    "Accepted",
    "CheckedPair",
    "GeneratedPairs",
    "Remark",
    "Review",
    "SetReport",
    "Telltale",
    "accept",
    "generate",
    "generate_pairs",
    "read_review",
    "report_on",
    "write_review",
]
