"""Columns of what is known of each chosen feature."""

from __future__ import annotations

import pyarrow as pa

from safesail.tables._schemas._columns import (
    FEATURE,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    LAYER,
    SAE,
    STRING,
    STRINGS,
    Column,
    TableSchema,
)

FEATURES = TableSchema(
    "features",
    1,
    "one row per chosen feature and concept, and one per other feature that was collected",
    (
        SAE,
        LAYER,
        FEATURE,
        Column(
            "concept",
            STRING,
            "the concept the feature was chosen for; null where none chose it and it was collected "
            "by its number: then what the ranking says, `f` to `specificity`, is null too",
        ),
        Column("f", FLOAT, "share of the concept's pairs that the feature distinguishes"),
        Column("f_low", FLOAT, "lower end of the 95 % Wilson interval of f"),
        Column("f_high", FLOAT, "upper end of the 95 % Wilson interval of f"),
        Column(
            "q_value",
            FLOAT,
            "Benjamini-Hochberg adjusted p of the sign test on pairs; of pairs that share a text "
            "one counts",
        ),
        Column(
            "called",
            pa.bool_(),
            "q_value is within the false discovery rate; uncalled ones fill up to ten a concept",
        ),
        Column(
            "separation",
            FLOAT,
            "average precision over all pairs; the largest of many is optimistic, see rankings",
        ),
        Column("specificity", FLOAT, "f less the largest f on any concept outside the branch"),
        Column(
            "q999",
            FLOAT,
            "0.999 quantile of the feature's non-zero activations: on the ranking's sample, then "
            "on the collected corpus once collected; the maximum where fewer than 1,000 are "
            "non-zero",
        ),
        Column("q999_error", FLOAT, "largest relative error of q999; 0 where it is exact"),
        Column("tokens_seen", INT, "content tokens of the collected corpus"),
        Column("fired", INT, "content tokens at which the feature is above zero"),
        Column("density", FLOAT, "fired / tokens_seen"),
        Column("max_activation", FLOAT, "largest activation at a content token"),
        Column("histogram_edges", FLOATS, "edges of the bins of positive activations"),
        Column("histogram_counts", INTS, "tokens per bin, one fewer than the edges"),
        Column("top_logits", STRINGS, "tokens whose logit the feature's direction raises most"),
        Column("bottom_logits", STRINGS, "tokens whose logit it lowers most"),
        Column("nearest_features", INTS, "features of the same SAE by decoder cosine, best first"),
        Column(
            "status",
            STRING,
            "`chosen`, then `collected`, `too_few_contexts` or `dead`",
            nullable=False,
        ),
    ),
)
