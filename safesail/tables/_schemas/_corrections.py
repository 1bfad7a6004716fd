"""Columns of what people corrected."""

from __future__ import annotations

import pyarrow as pa

from safesail.tables._schemas._columns import FEATURE, SAE, STRING, STRINGS, Column, TableSchema

CORRECTIONS = TableSchema(
    "corrections",
    1,
    "one row per correction by a person, oldest first; the latest of a feature, field and "
    "language holds",
    (
        Column("time", pa.timestamp("s", tz="UTC"), "when it was made", nullable=False),
        Column("author", STRING, "who made it, as they name themselves", nullable=False),
        SAE,
        FEATURE,
        Column(
            "language",
            STRING,
            "language of the explanation, as a tag such as `en`; empty for concepts",
            nullable=False,
        ),
        Column("field", STRING, "what was corrected: `explanation` or `concepts`", nullable=False),
        Column(
            "value",
            STRINGS,
            "what it should be: the text alone, or names of concepts",
            nullable=False,
        ),
        Column("corrected", STRINGS, "what stood there before, alike; null where nothing did"),
        Column(
            "explained_by",
            STRING,
            "who had written that: a judge's model, `lexical`, the source of an import, or the "
            "author of an earlier correction",
            nullable=False,
        ),
    ),
)
