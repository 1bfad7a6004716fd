"""Templates: versions, fencing of what others wrote, nothing left undefined."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from safesail.judging import render

WINDOW = {"window": 1, "count": 2, "tokens": ["a", " b"]}


def test_render_names_the_version_and_parts_the_roles() -> None:
    prompt = render("simulate", explanation="x", windows=[WINDOW])
    assert prompt.version == "simulate/1"
    assert [message["role"] for message in prompt.messages] == ["system", "user"]
    assert "version" not in prompt.messages[0]["content"]
    repair = render("repair", error="x")
    assert [message["role"] for message in repair.messages] == ["user"]


def test_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="windows"):
        render("simulate", explanation="x")


@given(st.text())
def test_hostile_text_stays_inside_its_json_line(text: str) -> None:
    """Whatever a token holds, the user part has the same lines, and the text survives."""
    window = {"window": 1, "count": 1, "tokens": [text]}
    content = render("simulate", explanation="x", windows=[window]).messages[1]["content"]
    explanation, empty, line = content.split("\n")
    assert json.loads(explanation) == {"explanation": "x"}
    assert empty == ""
    assert json.loads(line) == window
    assert "<" not in line  # where chat templates' control strings begin
