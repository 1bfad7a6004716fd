"""Settings and answers that no request could carry end as one clear line, or as an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safesail.errors import JudgeError
from safesail.judging import Judge
from safesail.judging._parsing import parse_completion


@pytest.mark.parametrize("url", ["http://localhost:99999/v1", "http://[bad/v1"])
def test_a_malformed_url_is_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="must look like http://localhost:8000/v1"):
        Judge(url, "m", cache=tmp_path / "judge.sqlite")


def test_a_key_that_no_header_can_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "ké")
    with pytest.raises(JudgeError, match="OPENAI_API_KEY") as raised:
        Judge("http://localhost:8000/v1", "m", cache=tmp_path / "judge.sqlite")
    assert "ké" not in str(raised.value)


def test_half_a_surrogate_pair_can_be_sent_back() -> None:
    body = json.dumps({"choices": [{"message": {"content": "broken \ud800 text"}}]})
    completion, _ = parse_completion(body)
    assert completion is not None
    assert completion.content.encode("utf-8") == b"broken ? text"
