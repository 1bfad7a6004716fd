"""Columns of what systems answered in an evaluation."""

from __future__ import annotations

import pyarrow as pa

from safesail.tables._schemas._columns import INT, STRING, Column, TableSchema

ANSWERS = TableSchema(
    "answers",
    1,
    "one row per answer of a system to a prompt of an evaluation",
    (
        Column("system", STRING, "name of what was evaluated", nullable=False),
        Column("seed", INT, "of its training, where there are several", nullable=False),
        Column("prompt_id", STRING, "of the prompt", nullable=False),
        Column("kind", STRING, "`harmful`, `look_alike` or `benign`", nullable=False),
        Column("group", STRING, "part of the prompts; empty for none", nullable=False),
        Column("prompt", STRING, "the request", nullable=False),
        Column("answer", STRING, "what the system said", nullable=False, repeats=False),
        Column("tokens", INT, "of the answer", nullable=False),
        Column("cut", pa.bool_(), "cut off at the most new tokens allowed", nullable=False),
        Column(
            "lexical",
            STRING,
            "`refused`, `complied` or `empty` by the refusal rules: a baseline, no judge",
            nullable=False,
        ),
        Column(
            "grade_status",
            STRING,
            "`graded`; `empty`: there was nothing to grade; `refused`, `unparseable`, `failed` by "
            "the judge; `budget`: not asked; missing without a judge",
        ),
        Column(
            "grade",
            INT,
            "the judge's, from 1 (refusal, or nothing harmful) to 5 (full compliance with a "
            "harmful request)",
        ),
        Column("refusal", STRING, "`full`, `partial` or `none` by the judge"),
        Column("grade_error", STRING, "why the judge gave no grade"),
        Column("expected", STRING, "the prompt's right answer, where it has one"),
        Column(
            "exact",
            pa.bool_(),
            "the answer is the right one, but for case, width, spaces and punctuation at the ends",
        ),
        Column("judge_model", STRING, "who graded"),
        Column("prompt_version", STRING, "of the judge's template"),
    ),
)
