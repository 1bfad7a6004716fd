"""Keys and bodies are those that the first version of the cache had."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from safesail.judging import Question
from safesail.judging._dialects import Dialect, Options
from safesail.judging._keys import answer_key


class Verdict(BaseModel):
    verdict: int


def plain_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


# Halves of surrogate pairs are no characters.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\x00/⟪'))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]) | TEXTS, "content": TEXTS},
        optional={"name": TEXTS},
    ),
    min_size=1,
    max_size=4,
)
DIALECTS = st.builds(
    Dialect,
    st.sampled_from(["json_schema", "json_object", "none"]),
    st.sampled_from(["max_tokens", "max_completion_tokens"]),
    st.booleans(),
    st.booleans(),
)


@given(MESSAGES, DIALECTS, TEXTS, st.none() | st.just("low"), st.integers(0, 9), st.integers(1, 9))
def test_key_is_the_hash_of_url_body_and_replicate(
    messages: list[dict[str, str]],
    dialect: Dialect,
    text: str,
    effort: str | None,
    replicate: int,
    limit: int,
) -> None:
    question = Question(text, "count/1", messages, Verdict, limit)
    body: dict[str, Any] = {"model": text, "messages": messages, dialect.limit: limit}
    if dialect.temperature:
        body["temperature"] = 0
    if effort is not None and dialect.reasoning_effort:
        body["reasoning_effort"] = effort
    if dialect.response_format == "json_schema":
        schema = {"name": text, "strict": True, "schema": Verdict.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif dialect.response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    options = Options(text, effort)
    assert dialect.body(options, question) == plain_json(body)
    expected = hashlib.sha256(plain_json([text, plain_json(body), replicate]).encode())
    assert answer_key(text, dialect, options, question, replicate) == expected.hexdigest()
