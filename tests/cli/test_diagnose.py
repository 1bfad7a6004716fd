"""`safesail diagnose` as users run it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safesail.pipeline import Diagnoser
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]
TEXT = "the dog sat on the cat, he read a letter to her"


def test_a_text_and_what_fires(explained: Path, run: Run) -> None:
    code, out, err = run("diagnose", TEXT, "--study", explained, "--threshold", 0.01)
    assert code == 0, err
    diagnosis = Diagnoser(Study.open(explained)).diagnose(TEXT)
    (layer,) = diagnosis.layers
    assert out.startswith(f"layer {layer.layer}: {layer.sae}, {len(layer.features)} features")
    assert f"{diagnosis.peaks()[0].strength:.2f}" in out
    for token in range(len(diagnosis.tokens)):
        for firing in diagnosis.firings(token, top=5, threshold=0.01):
            told = firing.feature.explanation or f"({firing.feature.status})"
            assert told[:20] in out
    assert "q999" in err
    lit = [one for one in diagnosis.trajectories if one.peak >= 0.01]
    for one in lit:
        assert f"{one.concept}, up to {one.peak:.2f}" in out


def test_json_is_the_librarys(explained: Path, run: Run) -> None:
    where = ("--study", explained, "--json")
    code, out, _ = run("diagnose", TEXT, *where, "--top", 2, "--threshold", 0.2)
    assert code == 0
    expected = Diagnoser(Study.open(explained)).diagnose(TEXT).to_json(top=2, threshold=0.2)
    assert json.loads(out) == json.loads(json.dumps(expected))


def test_a_text_from_standard_input(
    explained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"the dog\xff sat"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stream)
    code, out, _ = run("diagnose", "-", "--study", explained, "--json")
    assert code == 0
    assert json.loads(out)["text"] == "the dog\ufffd sat"


def test_two_texts(explained: Path, run: Run) -> None:
    other = "nobody sailed the boat"
    code, out, err = run("diagnose", TEXT, "--compare", other, "--study", explained)
    assert code == 0, err
    assert f"first: {TEXT}" in out
    assert f"second: {other}" in out
    assert "Two texts are no sample" in err
    code, out, _ = run("diagnose", TEXT, "--compare", other, "--study", explained, "--json")
    content = json.loads(out)
    for row in content["features"]:
        ends = [0 if row[s] is None else row[s]["strength"] for s in ("first", "second")]
        assert row["difference"] == pytest.approx(ends[1] - ends[0], abs=1e-5)


def test_an_answer(explained: Path, run: Run) -> None:
    asked = ("--generate", 4, "--temperature", 1, "--seed", 2)
    code, out, err = run("diagnose", TEXT, "--study", explained, *asked)
    assert code == 0, err
    assert "answer: " in out
    _, out, _ = run("diagnose", TEXT, "--study", explained, *asked, "--json")
    parts = [token["part"] for token in json.loads(out)["tokens"]]
    assert parts.count("answer") <= 4
    assert parts == sorted(parts, reverse=True)


def test_control_characters_cannot_move_the_cursor(explained: Path, run: Run) -> None:
    text = "\x1b[2J\x1b]0;title\x07the dog\r\b\u202e sat"
    code, out, err = run(
        "diagnose", text, "--compare", f"{text} \x9b1A", "--study", explained, "--threshold", 0
    )
    assert code == 0, err
    more = run("diagnose", text, "--study", explained, "--threshold", 0, "--generate", 3)[1]
    for character in "\x1b\x07\r\b\u202e\x9b":
        assert character not in out + more


def test_what_cannot_be_diagnosed_is_one_line(explained: Path, fresh: Path, run: Run) -> None:
    for arguments, told in (
        (("  ", "--study", explained), "the text is empty"),
        ((TEXT, "--study", fresh), "run `safesail explain` first"),
        ((TEXT, "--study", explained, "--layer", 0), "no explained feature at layer 0"),
        ((TEXT, "--study", explained, "--concept", "drugs"), "concept 'drugs' has no pairs"),
    ):
        code, out, err = run("diagnose", *arguments)
        assert (code, out) == (1, "")
        assert told in err
        assert err.count("\n") == 1


def test_nothing_that_fires_is_said(explained: Path, run: Run) -> None:
    code, out, _ = run("diagnose", TEXT, "--study", explained, "--threshold", 1000)
    assert code == 0
    assert "No explained feature reaches a strength of 1000 on any token." in out
