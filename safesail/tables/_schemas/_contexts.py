"""Columns of where the chosen features fire, and how they lie in a file."""

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

CONTEXTS = TableSchema(
    "contexts",
    1,
    "one row per context of a feature",
    (
        SAE,
        LAYER,
        FEATURE,
        Column("split", STRING, "`explain` or `score`, by hash of the document", nullable=False),
        Column(
            "kind", STRING, "`active`, `silent`, or `hard_silent`: its words occur", nullable=False
        ),
        Column(
            "level",
            INT,
            "tenths of q999 that the peak reaches, 1 to 10; 0 is silent",
            nullable=False,
        ),
        Column(
            "sample",
            STRING,
            "`top`: among the strongest; `random`: drawn from its stratum",
            nullable=False,
        ),
        Column("document", STRING, "id of the document", nullable=False),
        Column(
            "start",
            INT,
            "place of the first token in the document, or in the part of it where parts share "
            "the id; BOS not counted",
            nullable=False,
        ),
        Column("tokens", STRINGS, "token strings; joined they are the text", nullable=False),
        Column(
            "token_ids", pa.list_(pa.int32()), "token ids of the language model", nullable=False
        ),
        Column(
            "activations",
            pa.list_(pa.float32()),
            "the feature's activation at each token",
            nullable=False,
            repeats=False,  # zeros, and values of their own: a third larger with a dictionary
        ),
        Column(
            "peak",
            pa.float32(),
            "largest activation of the window",
            nullable=False,
            repeats=False,
        ),
        Column("peak_at", INT, "its place in the window, 0 is the first token", nullable=False),
        Column(
            "weight",
            FLOAT,
            "inverse sampling probability in the row's stratum; NaN for `top` rows, no sample",
        ),
    ),
    grouped_by="feature",
)
