"""Concept files in three formats, their faults, and the tree that names form."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from safesail.concepts import ConceptSet, ContrastPair, load_concepts
from safesail.errors import InputError

ROWS = [
    {"concept": "fraud", "positive": "He forged it.", "negative": "He signed it."},
    {"concept": "violence/threat", "positive": 'I\'ll "get" you, now.', "negative": "I'll call."},
    {"concept": "violence/threat", "positive": "café\u2028two", "negative": "café\u2028one"},
    {"concept": "violence", "positive": "A brawl.", "negative": "A dance."},
]


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path.name


def write_csv(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "note"])
        writer.writeheader()
        writer.writerows({**row, "note": "ignored"} for row in rows)
    return path.name


def write_toml(path: Path, rows: list[dict[str, str]]) -> str:
    lines = []
    for row in rows:
        text = {key: json.dumps(value, ensure_ascii=False) for key, value in row.items()}
        pair = f"{{positive = {text['positive']}, negative = {text['negative']}}}"
        lines += ["[[concept]]", f"name = {text['concept']}", f"pairs = [{pair}]"]
    return write(path, "\n".join(lines))


def loaded(folder: Path, name: str) -> list[tuple[str, str, str]]:
    pairs = load_concepts([name], folder).pairs
    return [(pair.concept, pair.positive, pair.negative) for pair in pairs]


def test_three_formats_say_the_same(tmp_path: Path) -> None:
    expected = [tuple(row.values()) for row in ROWS]
    assert loaded(tmp_path, write(tmp_path / "a.jsonl", as_jsonl(ROWS))) == expected
    assert loaded(tmp_path, write_csv(tmp_path / "a.csv", ROWS)) == expected
    assert loaded(tmp_path, write_toml(tmp_path / "a.toml", ROWS)) == expected


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    expected = [tuple(row.values()) for row in ROWS]
    for name, make in (("a.csv", write_csv), ("a.toml", write_toml)):
        make(tmp_path / name, ROWS)
    write(tmp_path / "a.jsonl", as_jsonl(ROWS))
    for name in ("a.jsonl", "a.csv", "a.toml"):
        content = (tmp_path / name).read_text(encoding="utf-8")
        crlf = "\r\n".join(content.replace("\r\n", "\n").split("\n"))
        assert loaded(tmp_path, write(tmp_path / f"b{name}", "\ufeff" + crlf)) == expected


def test_files_add_up_and_repeated_pairs_count_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", as_jsonl(ROWS))
    second = write_csv(tmp_path / "b.csv", [ROWS[0], {**ROWS[0], "concept": "scam"}])
    concepts = load_concepts([first, second, first], tmp_path)
    assert len(concepts.pairs) == len(ROWS) + 1
    assert "scam" in concepts.names


def test_surrounding_space_is_no_difference(tmp_path: Path) -> None:
    row = {"concept": " fraud ", "positive": "\ttext ", "negative": "text"}
    name = write(tmp_path / "a.jsonl", as_jsonl([row]))
    with pytest.raises(InputError, match="identical twins"):
        load_concepts([name], tmp_path)


GOOD = as_jsonl(ROWS[:2])
BAD = [
    ("a.jsonl", GOOD + "\n{not json}\n", r"a\.jsonl, line 4: not JSON"),
    ("a.jsonl", GOOD + "[1]\n", r"line 3: expected an object with concept, positive, negative"),
    ("a.jsonl", GOOD + '{"concept": "x", "positive": "y"}\n', r"line 3: 'negative' is missing"),
    ("a.jsonl", as_jsonl([{**ROWS[0], "positive": "  "}]), r"line 1: 'positive' is missing, empty"),
    ("a.jsonl", '{"concept": 1, "positive": "a", "negative": "b"}', r"'concept' is missing.*text"),
    ("a.jsonl", as_jsonl([{**ROWS[0], "concept": "a b"}]), r"concept 'a b': use letters"),
    ("a.jsonl", as_jsonl([{**ROWS[0], "concept": "a//b"}]), r"concept 'a//b': use letters"),
    ("a.jsonl", as_jsonl([{**ROWS[0], "concept": "../a"}]), r"concept '\.\./a': use letters"),
    ("a.jsonl", as_jsonl([{**ROWS[0], "negative": ROWS[0]["positive"]}]), r"identical twins"),
    ("a.jsonl", "", r"no contrast pairs in a\.jsonl"),
    ("a.jsonl", GOOD.replace("He", "Hé").encode("latin-1"), r"a\.jsonl is not UTF-8 \(byte \d+\)"),
    ("a.csv", "concept,positive\nx,y\n", r"line 2: 'negative' is missing"),
    ("a.csv", "concept,positive,negative\nx,y,z\nx,y\n", r"line 3: 'negative' is missing"),
    ("a.csv", 'concept,positive,negative\nx,"y,z\n', r"a\.csv, line 2: not CSV"),
    ("a.csv", "concept,positive,negative\n", r"no contrast pairs in a\.csv"),
    ("a.toml", "[[concept]]\nname = 'x'\n", r"concept 'x' has no pairs"),
    ("a.toml", "[[concept]]\nname = 'x'\npairs = []\n", r"concept 'x' has no pairs"),
    ("a.toml", "[[concept]]\nname = 'x'\npairs = ['y']\n", r"concept 'x', pair 1: 'positive' is m"),
    ("a.toml", "[[concept]]\npairs = [{positive = 'a', negative = 'b'}]\n", r"'concept' is m"),
    ("a.toml", "[concept]\nname = 'x'\n", r"write each concept as a \[\[concept\]\] table"),
    ("a.toml", "[[concepts]]\nname = 'x'\n", r"no contrast pairs in a\.toml"),
    ("a.toml", "name = \n", r"a\.toml is not valid TOML: .*line 1"),
    ("a.yaml", "", r"concepts are read from \.jsonl, \.csv or \.toml"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_each_fault_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        load_concepts([name], tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_file_beside_a_good_one_is_named(tmp_path: Path) -> None:
    good, empty = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "empty.jsonl", "\n")
    with pytest.raises(InputError, match=r"no contrast pairs in empty\.jsonl"):
        load_concepts([good, empty], tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"concept file .*none\.jsonl does not exist"):
        load_concepts(["none.jsonl"], tmp_path)
    with pytest.raises(InputError, match="no built-in concepts 'nonsense'; there are builtin:st"):
        load_concepts(["builtin:nonsense"], tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*folder\.csv"):
        load_concepts(["folder.csv"], tmp_path)


def pair(concept: str, number: int) -> ContrastPair:
    return ContrastPair(concept, f"{concept} {number} yes", f"{concept} {number} no")


TREE = ConceptSet(
    [
        pair("violence/threat/letter", 0),
        pair("fraud", 1),
        pair("violence", 2),
        pair("violencelike", 3),
        pair("violence/murder", 4),
        pair("violence/threat", 5),
    ]
)


def test_ancestors_exist_and_stand_before_their_children() -> None:
    assert TREE.names == (
        "violence",
        "violence/threat",
        "violence/threat/letter",
        "violence/murder",
        "fraud",
        "violencelike",
    )
    assert TREE.top_level == ("violence", "fraud", "violencelike")
    assert len(TREE) == 6


def test_parents_own_their_childrens_pairs() -> None:
    assert TREE.pair_numbers("violence") == [0, 2, 4, 5]
    assert TREE.pair_numbers("violence/threat") == [0, 5]
    assert TREE.pair_numbers("violence/threat/letter") == [0]
    assert TREE.pair_numbers("violencelike") == [3]


def test_a_branch_is_up_and_down_but_not_sideways() -> None:
    assert TREE.branch("violence/threat") == {
        "violence",
        "violence/threat",
        "violence/threat/letter",
    }
    assert TREE.branch("violence") == set(TREE.names) - {"fraud", "violencelike"}
    assert TREE.branch("fraud") == {"fraud"}


def test_select_checks_names() -> None:
    assert TREE.select([]) == TREE.names
    assert TREE.select(["fraud", "violence", "fraud"]) == ("fraud", "violence")
    with pytest.raises(InputError, match="concept 'theft' has no pairs in this study; known: viol"):
        TREE.select(["theft"])


def test_fingerprint_is_of_the_pairs_whatever_their_order() -> None:
    pairs = list(TREE.pairs)
    assert ConceptSet(reversed(pairs)).fingerprint() == TREE.fingerprint()
    assert ConceptSet([*pairs, pairs[0]]).fingerprint() == TREE.fingerprint()
    assert ConceptSet(pairs[1:]).fingerprint() != TREE.fingerprint()
    moved = [ContrastPair("fraud", pairs[0].positive, pairs[0].negative), *pairs[1:]]
    assert ConceptSet(moved).fingerprint() != TREE.fingerprint()
