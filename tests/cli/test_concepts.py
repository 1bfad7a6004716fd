"""Pairs for a concept, from the judge over a person's review to a ranking's concepts."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import writing_judge
from judge_server import Fault, JudgeServer

from safesail.concepts import load_concepts
from safesail.errors import InputError

Run = Callable[..., tuple[int, str, str]]

# No model is loaded, no SAE and no corpus read here.
SETTINGS = """
[model]
name = "model"
[candidates]
[concepts]
files = ["concepts.jsonl"]
[corpus]
[[corpus.sources]]
path = "corpus.jsonl"
"""
TAKEN = {
    "concept": "violence/assault",
    "positive": "the dog sat on the cat",
    "negative": "the dog sat by the cat",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        running.answer = writing_judge.writer()
        yield running


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of settings and one pair."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "safesail.toml").write_text(SETTINGS, encoding="utf-8")
    write_lines(folder / "concepts.jsonl", [TAKEN])
    return folder


@pytest.fixture
def generate(run: Run, server: JudgeServer, study: Path) -> Callable[..., tuple[int, str, str]]:
    """Generate eight pairs with the test's judge."""

    def generate(name: str, *options: Any) -> tuple[int, str, str]:
        judge = ("--judge-url", server.url, "--judge-model", "writer", "--study", study)
        described = ("--description", "announced harm", "--count", 8)
        return run("concepts", "generate", name, *described, *judge, *options)

    return generate


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_from_nothing_to_a_concept_of_the_study(
    generate: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    code, out, err = generate("menace/letter")
    assert code == 0, err
    assert "menace/letter: 8 pairs wanted, 8 asked for, 8 written, 8 kept for review, 0 dr" in out
    assert "judge writer: 1 questions (1 answered), 1 calls sent now" in out
    review = study / "concepts" / "menace" / "letter.review.jsonl"
    assert f"written: {review}\n" in err
    header, *pairs = lines(review)
    assert header["concept"] == "menace/letter"
    assert header["description"] == "announced harm"
    assert (header["judge_url"], header["judge_model"]) == (server.url, "writer")
    assert all(pair["keep"] for pair in pairs)
    for pair in pairs:
        assert set(f"{pair['positive']} {pair['negative']}".split()) <= set(out.split())
    # Nothing is used yet: neither written as concepts, nor listed, nor readable as such.
    assert [path.name for path in review.parent.iterdir()] == [review.name]
    settings = (study / "safesail.toml").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="line 1: 'positive' is missing"):
        load_concepts(["concepts/menace/letter.review.jsonl"], study)
    # A person looks: drops one, mends another, adds a word of their own.
    pairs[2]["keep"] = False
    pairs[3]["positive"] = "I will come for you at night"
    pairs[3]["negative"] = "I will come with you at noon"
    pairs[4]["comment"] = "good"
    write_lines(review, [header, *pairs])
    code, out, err = run("concepts", "accept", review, "--study", study)
    assert code == 0, err
    assert "menace/letter: 7 pairs accepted, 1 left out" in out
    accepted = load_concepts(["concepts/menace/letter.jsonl"], study)
    assert [(pair.positive, pair.negative) for pair in accepted.pairs] == [
        (pair["positive"], pair["negative"]) for pair in pairs if pair["keep"]
    ]
    assert accepted.names == ("menace", "menace/letter")
    assert lines(study / "concepts/menace/letter.jsonl")[0]["generated_by"] == "writer"
    assert (study / "safesail.toml").read_text(encoding="utf-8") == settings
    # The printed line is what the list of files lacks.
    (line,) = [line for line in out.splitlines() if line.startswith('  "')]
    added = settings.replace('["concepts.jsonl"]', f'[{line}"concepts.jsonl"]')
    (study / "safesail.toml").write_text(added, encoding="utf-8")
    named = tomllib.loads(added)["concepts"]["files"]
    assert load_concepts(named, study).names[:2] == ("menace", "menace/letter")
    code, _, err = run("concepts", "accept", review, "--study", study, "--yes")
    assert code == 0
    assert "add this line" not in err


def test_a_budget_ends_it_and_what_came_is_kept(
    generate: Run, server: JudgeServer, study: Path
) -> None:
    # The first question goes whatever it costs.
    code, _, err = generate("menace", "--count", 40, "--budget", "10tokens")
    assert code == 0, err
    assert len(server.requests) == 1
    assert "fewer than wanted: the budget of 10 tokens is spent" in err
    assert len(lines(study / "concepts" / "menace.review.jsonl")) == 1 + 10
    code, _, err = generate("terror", "--budget", "5usd")
    assert code == 1
    assert "needs the price of writer" in err


def test_what_is_refused_is_asked_of_the_fallback(generate: Run, server: JudgeServer) -> None:
    server.faults.append(Fault(refusal="I cannot write that."))
    code, out, err = generate("menace", "--fallback-judge", "second")
    assert code == 0, err
    assert [body["model"] for body in server.requests] == ["writer", "second"]
    assert "8 kept for review" in out


def test_a_language_is_a_tag(generate: Run, server: JudgeServer) -> None:
    code, _, err = generate("menace", "--language", "Klingon, please")
    assert code == 1
    assert "language 'Klingon, please' must be a language tag such as en, zh" in err
    assert server.requests == []


def test_dropped_pairs_are_shown_with_their_reasons_and_can_be_taken_back(
    generate: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    def change(number: int, pair: dict[str, str]) -> dict[str, str]:
        return {**pair, "positive": pair["positive"] + " [sic]"} if number == 1 else pair

    server.answer = writing_judge.writer(change)
    code, out, _ = generate("menace", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["wanted"], found["asked"], found["written"], found["kept"]) == (8, 9, 9, 8)
    assert found["dropped"] == {"placeholder": 1}
    assert found["questions"] == {"answered": 2}
    assert found["pairs"][1]["faults"] == ["placeholder: the positive holds [sic]"]
    review = Path(found["review"])
    header, *pairs = lines(review)
    assert [pair["keep"] for pair in pairs] == [True, False] + [True] * 7
    pairs[1]["keep"] = True
    write_lines(review, [header, *pairs])
    code, out, err = run("concepts", "accept", review, "--study", study)
    assert code == 0, err
    assert "Accepted, though the checks say:" in out
    assert "placeholder: the positive holds [sic]" in " ".join(out.split())
    assert len(lines(study / "concepts" / "menace.jsonl")) == 9


def test_texts_cannot_speak_to_the_terminal(generate: Run, server: JudgeServer) -> None:
    hostile = ["\x1b[31mred", "[bold]big[/bold]", "=HYPERLINK(1)", "a\u202eb", "\x00\x07"]

    def change(number: int, pair: dict[str, str]) -> dict[str, str]:
        return {**pair, "positive": f"{hostile[number % len(hostile)]} {pair['positive']}"}

    server.answer = writing_judge.writer(change)
    server.faults.append(Fault(refusal="\x1b[2Jno \u202e"))
    code, out, err = generate("menace")
    assert code == 0
    assert not set("\x1b\x00\x07\u202e") & set(out + err)
    text = " ".join(out.split())
    assert "[bold]big[/bold]" in text  # as it is: no markup is read
    assert "=HYPERLINK(1)" in text
    assert "U+001B" in text
    assert "1 refused" in text


def test_a_judge_that_refuses_everything_ends_with_one_line(
    generate: Run, server: JudgeServer, study: Path
) -> None:
    server.faults += [Fault(refusal="I will not write this.")] * 3
    code, out, err = generate("menace")
    assert code == 1
    assert "3 questions (3 refused)" in out
    assert err.splitlines()[-1] == (
        "error: the judge wrote no pair: refused, I will not write this.; run again to ask again"
    )
    assert not (study / "concepts").exists()


def test_fewer_than_wanted_are_written_and_said(
    generate: Run, server: JudgeServer, study: Path
) -> None:
    same = server.answer({"messages": [{}, {"content": "Write 5 pairs"}]})
    server.answer = lambda body: same
    code, out, err = generate("menace")
    assert code == 0
    assert "8 pairs wanted, 17 asked for, 20 written, 5 kept for review, 15 dropped" in out
    assert "dropped, by the first reason found in each: 15 duplicate" in out
    assert "fewer than wanted: 3 questions in a row brought no pair that passed" in err
    assert sum(pair["keep"] for pair in lines(study / "concepts/menace.review.jsonl")[1:]) == 5


def test_what_lies_there_is_replaced_only_as_agreed(
    generate: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    assert generate("menace")[0] == 0
    review = study / "concepts" / "menace.review.jsonl"
    before = review.read_bytes()
    review.write_bytes(before + b"\n")
    sent = len(server.requests)
    code, _, err = generate("menace")
    assert code == 1
    assert f"{review} exists: accept it, move it, or add --yes to replace it" in err
    assert (review.read_bytes(), len(server.requests)) == (before + b"\n", sent)
    assert generate("menace", "--yes")[0] == 0
    assert (review.read_bytes(), len(server.requests)) == (before, sent)  # from the cache
    own = study / "concepts" / "menace.jsonl"
    own.write_text("mine")
    code, _, err = run("concepts", "accept", review, "--study", study)
    assert code == 1
    assert f"{own} exists: move it, or add --yes" in err
    assert own.read_text() == "mine"
    elsewhere = study / "more.jsonl"
    assert generate("menace", "--output", elsewhere)[0] == 0
    code, out, _ = run("concepts", "accept", study / "more.review.jsonl", "--study", study)
    assert code == 0
    assert '  "more.jsonl",' in out
    assert len(lines(elsewhere)) == 8


class Terminal(io.StringIO):
    """Where a person types."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_a_person_is_asked(
    generate: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate("menace")[0] == 0
    review = study / "concepts" / "menace.review.jsonl"
    review.write_text("decisions")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    code, _, err = generate("menace")
    assert code == 1
    assert "exists. Replace it? [y/N]" in err
    assert review.read_text() == "decisions"
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert generate("menace")[0] == 0
    assert len(lines(review)) == 9


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a b", (), "concept 'a b': use letters, digits, _ and -, with / before a child"),
        ("../a", (), "concept '../a': use letters"),
        ("a/", (), "concept 'a/': use letters"),
        ("a", ("--description", " "), "concept 'a' has no description"),
        ("a", ("--output", "a.csv"), "name the file that accepted pairs go to"),
        ("a", ("--output", "a.review.jsonl"), "name the file that accepted pairs go to"),
        ("a", ("--judge-url", "ftp://x"), "URL must look like"),
        ("a" * 300, (), "File name too long"),
    ],
)
def test_what_cannot_be_done_exits_1(
    generate: Run, study: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    code, _, err = generate(name, *options)
    assert code == 1
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(study.rglob("*.review.jsonl"))


def test_a_study_without_a_judge_says_how_to_name_one(run: Run, study: Path) -> None:
    code, _, err = run("concepts", "generate", "a", "-d", "b", "--study", study)
    assert code == 1
    assert err == (
        "error: no judge writes the pairs: set judge.model, or name one with --judge-model\n"
    )
    code, _, err = run("concepts", "generate", "a", "-d", "b", "-s", study, "--judge-model", "j")
    assert code == 1
    assert "set the environment variable OPENAI_API_KEY" in err


HEADER = {
    "review": "contrast pairs/1",
    "concept": "menace",
    "description": "d",
    "language": "en",
    "seed": 0,
    "judge_url": "http://x/v1",
    "judge_model": "j",
    "prompt_version": "contrast_pairs/1",
}
PAIR = {"keep": True, "positive": "I will come for you", "negative": "I will come with you"}
BAD = [
    ([], "is empty: generate it again"),
    ([PAIR], "line 1: review: Field required"),
    ([{**HEADER, "review": "contrast pairs/2"}, PAIR], "line 1: review: Input should be 'contra"),
    ([{**HEADER, "concept": "../menace"}, PAIR], "line 1: concept: Value error, concept '../men"),
    ([HEADER, {**PAIR, "keep": "yes"}], "line 2: keep: Input should be a valid boolean"),
    ([HEADER, {"keep": True, "positive": "a"}], "line 2: negative: Field required"),
    ([HEADER, [1]], "line 2: line: "),
    ([HEADER, {**PAIR, "keep": False}], "keeps no pair: set `keep` to true in some"),
    ([HEADER, {**PAIR, "positive": " "}], "line 2: empty: the positive has no letter or digit; m"),
    ([HEADER, PAIR, {**PAIR, "negative": "I will come for you!"}], "line 3: equal_twins: but for"),
    ([HEADER, {**PAIR, "positive": "half \ud800"}], "line 2: "),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_each_fault_of_a_review_is_named(
    run: Run, study: Path, rows: list[Any], message: str
) -> None:
    review = study / "menace.review.jsonl"
    write_lines(review, rows)
    code, out, err = run("concepts", "accept", review, "--study", study)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
    assert not (study / "menace.jsonl").exists()


def test_what_is_no_review_is_refused(run: Run, study: Path) -> None:
    accept = ("concepts", "accept", "--study", study)
    assert "no review " in run(*accept, study / "none.review.jsonl")[2]
    assert "its name must end in .review.jsonl" in run(*accept, study / "concepts.jsonl")[2]
    (study / "a.review.jsonl").write_bytes(b"\xff")
    assert "is not UTF-8 (byte 0)" in run(*accept, study / "a.review.jsonl")[2]


def test_kept_pairs_are_compared_with_the_study(run: Run, study: Path) -> None:
    review = study / "menace.review.jsonl"
    write_lines(review, [HEADER, {**PAIR, "positive": TAKEN["positive"]}])
    code, out, _ = run("concepts", "accept", review, "--study", study)
    assert code == 0
    assert "duplicate: the positive is a text of 'violence/assault'" in " ".join(out.split())
