"""Columns of what features mean and how sure that is."""

from __future__ import annotations

import pyarrow as pa

from safesail.tables._schemas._columns import (
    FEATURE,
    FLOAT,
    INT,
    LAYER,
    SAE,
    STRING,
    STRINGS,
    Column,
    TableSchema,
)

EXPLANATIONS = TableSchema(
    "explanations",
    1,
    "one row per feature, explainer, judge and language",
    (
        SAE,
        LAYER,
        FEATURE,
        Column(
            "language", STRING, "language of the explanation, as a tag such as `en`", nullable=False
        ),
        Column(
            "concepts", STRINGS, "concepts the feature was chosen for, best first", nullable=False
        ),
        Column("judge_concepts", STRINGS, "concepts that the judge assigned; null for lexical"),
        Column("explanation", STRING, "what the feature responds to"),
        Column(
            "explainer", STRING, "`lexical` (no language model asked) or `judge`", nullable=False
        ),
        Column("judge_model", STRING, "model that explained and simulated; null for lexical"),
        Column("judge_url", STRING, "base URL it was asked at; null for lexical"),
        Column("prompt_version", STRING, "versions of the prompts; null for lexical"),
        Column("confidence", FLOAT, "the judge's own confidence, 0 to 1; null for lexical"),
        Column(
            "correlation",
            FLOAT,
            "Pearson correlation of simulated and true activation over the tokens of held-out "
            "windows, weighted to the mixture",
        ),
        Column("correlation_low", FLOAT, "lower end of its 95 % interval, documents as clusters"),
        Column("correlation_high", FLOAT, "upper end of its 95 % interval"),
        Column("discrimination", FLOAT, "AUROC of window peaks, active against silent windows"),
        Column("discrimination_low", FLOAT, "lower end of its 95 % interval"),
        Column("discrimination_high", FLOAT, "upper end of its 95 % interval"),
        Column("observations", INT, "held-out windows behind the scores", nullable=False),
        Column("mixture", STRING, "kinds of windows the scores refer to, with their shares"),
        Column("item_format", STRING, "how activations were simulated"),
        Column(
            "calls", INT, "requests sent for the row, cached answers not counted", nullable=False
        ),
        Column("prompt_tokens", INT, "prompt tokens of all answers behind the row", nullable=False),
        Column(
            "completion_tokens",
            INT,
            "completion tokens of all answers behind the row",
            nullable=False,
        ),
        Column(
            "status",
            STRING,
            "`scored`, `explained` (no score), `refused`, `unparseable`, `failed`, "
            "`too_few_contexts` or `dead`",
            nullable=False,
        ),
        Column("error", STRING, "why, where the status is not `scored`"),
        Column("created_at", pa.timestamp("s", tz="UTC"), "when the row was made", nullable=False),
    ),
)
