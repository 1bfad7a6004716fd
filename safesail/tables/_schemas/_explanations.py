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
    "one row per feature, explainer, source, judge, scorer and language",
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
            "explainer",
            STRING,
            "`lexical` (no language model asked), `judge`, or `imported` from a file; in exports "
            "to other tools also `person`",
            nullable=False,
        ),
        Column("judge_model", STRING, "model that was asked; null for lexical"),
        Column(
            "explained_by",
            STRING,
            "model that wrote the explanation: the judge, or the fallback where that refused",
        ),
        Column("judge_url", STRING, "base URL it was asked at; null for lexical"),
        Column("prompt_version", STRING, "versions of the prompts; null for lexical"),
        Column("confidence", FLOAT, "the judge's own confidence, 0 to 1; null for lexical"),
        Column(
            "correlation",
            FLOAT,
            "Pearson correlation of simulated and true activation over what `item_format` names, "
            "weighted to the mixture; of an imported row, as its file states it",
        ),
        Column("correlation_low", FLOAT, "lower end of its 95 % interval, documents as clusters"),
        Column("correlation_high", FLOAT, "upper end of its 95 % interval"),
        Column(
            "discrimination",
            FLOAT,
            "AUROC of what was simulated, active against silent; 0.5 is chance",
        ),
        Column("discrimination_low", FLOAT, "lower end of its 95 % interval"),
        Column("discrimination_high", FLOAT, "upper end of its 95 % interval"),
        Column(
            "observations",
            INT,
            "held-out windows, segments or items behind the scores",
            nullable=False,
        ),
        Column("missing", INT, "those that were asked and not answered"),
        Column(
            "missing_failed",
            INT,
            "of these, those whose request failed; the next run asks for them again",
        ),
        Column("active_share", FLOAT, "share of the observations that are active"),
        Column("mixture", STRING, "kinds of windows the scores refer to, with their shares"),
        Column("item_format", STRING, "how activations were simulated"),
        Column(
            "scorer",
            STRING,
            "`items`, `segments`, `tokens`, `detection` or `fuzzing`; null for lexical",
        ),
        Column(
            "precision",
            FLOAT,
            "half-width of discrimination's interval at which scoring was to stop; null where "
            "nothing stops early",
        ),
        Column("looks", INT, "times that the score was looked at, the last one included"),
        Column("prompts", INT, "scoring prompts asked"),
        Column(
            "shared_discrimination",
            FLOAT,
            "correlation within a prompt of what items contribute to discrimination, pooled over "
            "features",
        ),
        Column("shared_correlation", FLOAT, "the same of what they contribute to correlation"),
        Column(
            "design_effect",
            FLOAT,
            "factor of discrimination's variance for errors shared within prompts; its interval "
            "holds it",
        ),
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
        Column("reasoning_tokens", INT, "of the completion tokens, those that were not shown"),
        Column(
            "cost_usd",
            FLOAT,
            "US dollars for all answers behind the row, by the price list; null without a price",
        ),
        Column("fallback_answers", INT, "answers that the fallback judge gave"),
        Column(
            "status",
            STRING,
            "`scored`, `explained` (no score), `inherited`, `imported`, `refused`, `unparseable`, "
            "`failed`, `budget` (it was spent), `too_few_contexts` or `dead`",
            nullable=False,
        ),
        Column(
            "inherited_from",
            INT,
            "the near-duplicate feature that the explanation was written for",
        ),
        Column("error", STRING, "why, where the status is not `scored`"),
        Column(
            "source",
            STRING,
            "where an imported explanation is from, as `format:file`; null for those written here",
        ),
        Column(
            "tags",
            STRINGS,
            "labels that an imported explanation came with, such as Safe-SAIL's; else null",
        ),
        Column(
            "masked",
            pa.bool_(),
            "whether an imported explanation is hidden, whole or in part, as `***`",
        ),
        Column("duplicates", INT, "further entries of the feature in the imported file"),
        Column(
            "imported_scores",
            STRING,
            "scores of an imported row that have no column here, as a JSON list of objects with "
            "`type`, `model`, `value` and `details`",
        ),
        Column("created_at", pa.timestamp("s", tz="UTC"), "when the row was made", nullable=False),
    ),
)
