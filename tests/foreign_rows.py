"""Rows of the explanations table with text as hostile as it comes, and tables to export."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from safesail.tables import EXPLANATIONS, Context, table_from_rows
from safesail.tables.formats import SaeTables

Row = dict[str, Any]
MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

HOSTILE = [
    "",
    "</script><script>alert(1)</script>",
    '=HYPERLINK("http://x")',
    "line\nfeed\r\u2028\u2029\x85 end",
    "\u202eright to left\u202c \ufeff\x7f\x1b[2J",
    '{"explanation": null}, "1_2": "***',
    "猫 🙂 é",
    "***",
    "a *** b",
]
# Anything that UTF-8 can hold but NUL, which the formats replace: that has a test of its own.
TEXT = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30),
)
_SHARE = st.floats(0, 1)
_SIGNED = st.floats(-1, 1)


def row(**columns: Any) -> Row:
    """A row as `safesail explain` with a judge makes it."""
    made: Row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
    counts = ("observations", "calls", "prompt_tokens", "completion_tokens")
    made |= dict.fromkeys(counts, 0)
    made |= {"sae": "first", "layer": 3, "feature": 7, "language": "en", "concepts": ["fraud"]}
    made |= {"explanation": "lies", "explainer": "judge", "judge_model": "gpt", "status": "scored"}
    return made | {"explained_by": "gpt", "created_at": MOMENT, **columns}


@st.composite
def scores(draw: st.DrawFn) -> Row:
    """What a scorer enters, or nothing."""
    found: Row = {}
    for name, values in (("correlation", _SIGNED), ("discrimination", _SHARE)):
        if draw(st.booleans()):
            low, value, high = sorted(draw(st.tuples(values, values, values)))
            found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    if found:
        found |= {
            "observations": draw(st.integers(0, 10**6)),
            "missing": draw(st.none() | st.integers(0, 99)),
            "active_share": draw(st.none() | _SHARE),
            "mixture": draw(st.none() | TEXT),
            "item_format": draw(st.none() | TEXT),
            "scorer": draw(st.sampled_from([None, "items", "segments"])),
        }
    return found


FOREIGN_SCORE = st.fixed_dictionaries(
    {
        "type": TEXT.filter(bool).map(lambda text: "x" + text),
        "model": st.none() | TEXT.map(lambda text: "m" + text),
        "value": _SIGNED,
        "details": TEXT,
    }
)
FOREIGN_SCORES = st.lists(FOREIGN_SCORE, max_size=3).map(
    lambda found: json.dumps(found, ensure_ascii=False, sort_keys=True) if found else None
)


def tables(rows: list[Row], **fields: Any) -> SaeTables:
    """Rows as a study keeps and reads them, of one SAE."""
    stored = table_from_rows(rows, EXPLANATIONS).to_pylist()
    layer = rows[0]["layer"] if rows else 3
    return SaeTables(
        **{"sae": "first", "layer": layer, "hook_point": None, "explanations": stored, **fields}
    )


def context(feature: int = 7, **fields: Any) -> Context:
    """A context of four tokens whose third is the peak."""
    given = {"sae": "first", "layer": 3, "split": "score", "kind": "active", "level": 9}
    given |= {"sample": "random", "document": "d", "start": 4, "peak_at": 2, "weight": 1.0}
    given |= {"tokens": ["a", " b\x00", " <c>", ""], "token_ids": [1, 2, 3, 4]}
    given |= {"activations": [0.0, 0.10000000149011612, 2.5, 0.0], "peak": 2.5}
    return Context(feature=feature, **{**given, **fields})  # type: ignore[arg-type]


def assert_carried(rows: list[Row], found: list[Row], columns: tuple[str, ...]) -> None:
    """Fail where a column that a format carries does not come back, field by field."""
    assert len(found) == len(rows)
    for before, after in zip(rows, found, strict=True):
        for name in columns:
            wanted = before[name]
            if name == "masked":
                wanted = before["explanation"] is not None and "***" in before["explanation"]
            assert after.get(name) == wanted or (wanted == 0 and name not in after), name
