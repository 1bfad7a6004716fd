"""An endpoint's echo of the key is replaced, however JSON writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_questions import Verdict, ask, question
from judge_server import JudgeServer

from safesail.errors import JudgeError
from safesail.judging import Judge
from safesail.judging._credentials import without_key

KEY = 'sk-a/key+that"must\\never/be=shown'


def plain(text: str) -> str:
    return text


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def in_php(text: str) -> str:
    """With slashes escaped, as PHP's JSON does."""
    return in_json(text).replace("/", "\\/")


def in_units(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


def in_capitals(text: str) -> str:
    return "".join(f"\\u{ord(letter):04X}" for letter in text)


def partly(text: str) -> str:
    return in_units(text[:2]) + in_php(text[2:])


@pytest.mark.parametrize("ending", ["?api_key=sk-secret", "?api-version=1", "#sk-secret"])
def test_a_url_ends_before_its_query(tmp_path: Path, ending: str) -> None:
    with pytest.raises(JudgeError, match="must end before") as raised:
        Judge(f"http://127.0.0.1:9/v1{ending}", "m", cache=tmp_path / "judge.sqlite")
    assert "secret" not in str(raised.value)


WRITTEN = [plain, in_json, in_php, in_units, in_capitals, partly]
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=64)


@pytest.mark.parametrize("write", WRITTEN)
@pytest.mark.parametrize("nested", [False, True])
def test_the_key_is_replaced_however_it_is_written(
    write: Callable[[str], str], nested: bool
) -> None:
    said = f"not with {write(KEY)}, please"
    text = json.dumps({"said": said}) if nested else said
    assert without_key(text, KEY) == text.replace(
        json.dumps(write(KEY))[1:-1] if nested else write(KEY), "[key]"
    )


@given(printable, st.sampled_from(WRITTEN))
def test_any_key_is_replaced(key: str, write: Callable[[str], str]) -> None:
    found = without_key(f"<{write(key)}>", key)
    assert "[key]" in found
    assert write(key) not in found.replace("[key]", "")


@given(st.text())
def test_another_text_stays_as_it_is(text: str) -> None:
    assert without_key(text, KEY) == text


def test_a_short_key_may_be_a_word_of_an_answer() -> None:
    assert without_key("a secret password", "password") == "a secret password"


def test_an_escaped_echo_in_an_answer_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with JudgeServer() as server:
        server.answer = lambda body: f'{{"verdict": 3, "why": "{in_units(KEY)}"}}'
        judge = Judge(server.url, "m", cache=tmp_path / "j.sqlite", key_variable="JUDGE_KEY")
        (answer,) = ask(judge, question())
    assert answer.value == Verdict(verdict=3)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"[key]" in stored
    assert in_json(in_units(KEY)).encode() not in stored
