"""Columns of what training made."""

from __future__ import annotations

from safesail.tables._schemas._columns import (
    FLOAT,
    INT,
    LAYER,
    SAE,
    STRING,
    Column,
    TableSchema,
)

TRAINING = TableSchema(
    "training",
    1,
    "one row per SAE that `safesail train-saes` made",
    (
        SAE,
        LAYER,
        Column(
            "hook_point",
            STRING,
            "TransformerLens name of the activation the SAE reads",
            nullable=False,
        ),
        Column(
            "architecture",
            STRING,
            "as trained; batchtopk and matryoshka are saved as jumprelu, as SAELens does",
            nullable=False,
        ),
        Column(
            "sparsity",
            FLOAT,
            "active features per token that were asked (k, or a target); for standard and gated "
            "the L1 coefficient",
        ),
        Column("width", INT, "number of features of the SAE", nullable=False),
        Column("steps", INT, "optimiser steps", nullable=False),
        Column("batch", INT, "tokens of a step", nullable=False),
        Column("learning_rate", FLOAT, "of Adam at the start; a tenth of it at the end"),
        Column("seed", INT, "seed of the first weights and of the order of tokens", nullable=False),
        Column(
            "tokens", INT, "content tokens that were trained on, each once a pass", nullable=False
        ),
        Column(
            "heldout_tokens",
            INT,
            "content tokens of documents set aside from all training (one in twenty, by hash of "
            "its id), which the figures below are taken at",
            nullable=False,
        ),
        Column(
            "loss",
            FLOAT,
            "squared error summed over coordinates, inputs scaled to variance 1 per coordinate, "
            "plus the architecture's penalties; compare within an architecture",
        ),
        Column("l0", FLOAT, "mean number of active features per token"),
        Column("fvu", FLOAT, "fraction of variance unexplained"),
        Column("dead_share", FLOAT, "share of features that never fire"),
        Column("seconds", FLOAT, "of training, interruptions left out"),
    ),
)
