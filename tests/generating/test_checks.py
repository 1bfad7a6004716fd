"""Every check with texts that it drops, and texts that look so and are not."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safesail.concepts import ContrastPair, load_concepts
from safesail.errors import InputError
from safesail.generating import CheckedPair
from safesail.generating._checks import PairChecks
from safesail.generating._naming import ConceptWords, require_name

GOOD = "He said that he would wait outside for her tonight"
TWIN = "She said that they could eat together with us today"


def checks(
    concept: str = "threat",
    language: str = "en",
    wanted: int = 8,
    existing: tuple[ContrastPair, ...] = (),
) -> PairChecks:
    return PairChecks(concept, language, wanted, existing)


def reasons(pair: CheckedPair) -> list[str]:
    return [fault.reason for fault in pair.faults]


def test_a_good_pair_passes_and_is_single_spaced() -> None:
    pair = checks().check(f"  {GOOD}\n\n(really)\t", TWIN)
    assert pair == CheckedPair(f"{GOOD} (really)", TWIN)
    assert pair.passed


@pytest.mark.parametrize(
    ("positive", "negative", "reason", "detail"),
    [
        ("", TWIN, "empty", "the positive has no letter"),
        ("?! ...", TWIN, "empty", "the positive"),
        (GOOD, "\u200b", "empty", "the negative"),
        (GOOD + "\x00", TWIN, "control_characters", "the positive holds U+0000"),
        (GOOD + "\x1b[31m", TWIN, "control_characters", "U+001B"),
        (GOOD, TWIN + "\u202e", "control_characters", "the negative holds U+202E"),
        (GOOD + "\u2028", TWIN, "control_characters", "U+2028"),
        ("他说今晚会在外面等她", TWIN, "wrong_script", "0 of 10 letters of the script of 'en'"),
        (f"Dear [NAME], {GOOD}", TWIN, "placeholder", "holds [NAME]"),
        (f"Dear {{name}}, {GOOD}", TWIN, "placeholder", "{name}"),
        (f"Dear <your name>, {GOOD}", TWIN, "placeholder", "<your name>"),
        (GOOD, f"{TWIN} ____", "placeholder", "the negative holds ____"),
        ("I'm sorry, but I can't help with that request today", TWIN, "refusal", "can't help with"),
        (f"As an AI, {GOOD}", TWIN, "refusal", "'As an AI'"),
        (" ".join(["word"] * 61), " ".join(["term"] * 61), "too_long", "61 words"),
        ("a" * 601, "b" * 601, "too_long", "601 characters"),
        (f"{GOOD} and {GOOD}", TWIN, "uneven", "21 and 10 words"),
        (GOOD, GOOD.upper() + "!", "equal_twins", "but for case"),
    ],
)
def test_each_fault_is_named(positive: str, negative: str, reason: str, detail: str) -> None:
    pair = checks().check(positive, negative)
    assert not pair.passed
    assert next(detail in fault.detail for fault in pair.faults if fault.reason == reason)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("I'm sorry, I can't wait to get rid of you", "I'm sorry, I can't wait to get home to you"),
        ("I will not help you, old man", "I will not leave you, old man"),
        ("Kill him", "Feed the poor man"),  # two words are no matter, whatever the ratio
        ("No, not at all", "Yes, I do, a lot"),
        ("\U0001f468\u200d\U0001f469 and she burns", "\U0001f468\u200d\U0001f469 and she reads"),
        ("我恨你 Anna 和你们所有人", "我爱你 Anna 和你们所有人"),
    ],
)
def test_what_only_looks_like_a_fault_passes(positive: str, negative: str) -> None:
    language = "zh" if "你" in positive else "en"
    assert reasons(checks(language=language).check(positive, negative)) == []


@pytest.mark.parametrize(
    ("language", "text", "passes"),
    [
        ("zh", "我今晚在外面等你", True),
        ("zh-Hant", "我今晚在外面等你", True),
        ("zh", "I will wait outside tonight", False),
        ("ja", "こんやそとでまつ", True),
        ("ja", "コンヤ外デ待ツ", True),
        ("ru", "Я буду ждать тебя", True),
        ("ru", "Ich werde warten", False),
        ("de", "Ich werde Ｗａｒｔｅｎ", True),  # fullwidth forms are the same letters
        ("ar", "سأنتظرك في الخارج", True),
        ("hi", "मैं बाहर इंतज़ार करूँगा", True),
        ("ko", "밖에서 기다릴게", True),
        ("xx", "Я буду wait", True),  # not known here: not held to anything
        ("en", "12345 67890", True),  # no letters, no script
    ],
)
def test_scripts_of_languages(language: str, text: str, passes: bool) -> None:
    pair = checks(language=language).check(text, f"{text} 7")
    assert ("wrong_script" not in reasons(pair)) == passes


def test_chinese_lengths_count_two_characters_a_word() -> None:
    long = "我" * 119
    assert reasons(checks(language="zh").check(long, "你" * 119)) == []
    assert "too_long" in reasons(checks(language="zh").check("我" * 121, "你" * 121))


def test_texts_are_not_repeated_within_the_set() -> None:
    made = checks()
    assert made.check(GOOD, TWIN).passed
    again = made.check(GOOD.upper() + " !", "A twin that nobody has ever written or read before")
    assert [str(fault) for fault in again.faults] == [
        "duplicate: the positive is a text of pair 1 here"
    ]
    crossed = made.check("One that nobody has ever written or read before", GOOD)
    assert reasons(crossed) == ["duplicate"]
    near = made.check(GOOD + "s", "Another that nobody knows, of other words and length")
    assert [str(fault) for fault in near.faults] == [
        "near_duplicate: the positive is nearly a text of pair 1 here"
    ]


def test_a_dropped_pair_takes_nothing() -> None:
    made = checks()
    assert not made.check(GOOD, TWIN + " [NAME]").passed
    assert made.check(GOOD, TWIN).passed


def test_twins_may_be_near_each_other() -> None:
    """Minimal pairs are the aim: one word of many differs."""
    twins = ("They said the old dog bit the neighbour", "They said the old dog met the neighbour")
    assert checks().check(*twins).passed


def test_texts_of_the_study_are_not_repeated() -> None:
    existing = (ContrastPair("fraud", "Some text", GOOD, "concepts.jsonl, line 4"),)
    pair = checks(existing=existing).check(GOOD, TWIN)
    assert [str(fault) for fault in pair.faults] == [
        "duplicate: the positive is a text of 'fraud' (concepts.jsonl, line 4)"
    ]


def test_naming_the_concept_is_flagged_and_then_too_much() -> None:
    made = checks(concept="animal/threat", wanted=8)  # a quarter: two
    texts = [
        ("He threatened everyone in that room", "He greeted all of them in that room"),
        ("Her threats came by letter each Monday", "Her roses came by parcel on Sundays"),
        ("A threatening voice on our phone", "Some laughing uncle on our radio"),
    ]
    found = [made.check(*pair) for pair in texts]
    assert [str(flag) for pair in found for flag in pair.flags] == [
        "names_concept: the positive alone says threatened",
        "names_concept: the positive alone says threats",
    ]
    assert [pair.passed for pair in found] == [True, True, False]
    assert reasons(found[2]) == ["names_concept"]
    # A look-alike holds the word on both sides, and no word tells its sides apart.
    pair = made.check(
        "The threat was meant for me, he said", "The threat of rain was gone, she said"
    )
    assert (pair.passed, pair.flags) == (True, ())


@pytest.mark.parametrize(
    ("concept", "language", "text", "named"),
    [
        ("fraud", "en", "Fraudsters and FRAUD", ["fraudsters", "fraud"]),
        ("self_harm/self-injury", "en", "she harmed herself", ["harmed"]),
        ("harassment", "en", "He kept harassing them", ["harassing"]),
        ("drugs/use", "en", "Use this because it is useful", []),  # too short a word
        ("hate", "en", "whatever", []),
        ("betrug", "de", "die Betrüge", ["betrüge"]),
        ("drohung", "de", "seine Drohungen", ["drohungen"]),
        ("诈骗", "zh", "这是诈骗电话", ["诈骗"]),
        ("überfall", "de", "Ein ÜBERFALL!", ["überfall"]),
        ("wizi", "xx", "wizi wizini", ["wizi", "wizini"]),
    ],
)
def test_words_of_the_name(concept: str, language: str, text: str, named: list[str]) -> None:
    assert ConceptWords(concept, language).named_in(text) == named


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("/_-a "), min_size=1))
@example("violence/threat")
@example("a//b")
@example("../a")
@example("a\n")
def test_names_are_those_that_concept_files_may_hold(name: str) -> None:
    row = {"concept": name, "positive": "a", "negative": "b"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
        try:
            accepted = load_concepts(["a.jsonl"], Path(folder)).names[-1] == name
        except InputError:
            accepted = False
    try:
        ours = require_name(name) == name
    except ValueError:
        ours = False
    assert ours == accepted


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_no_text_breaks_the_checks_and_what_passes_can_be_loaded(
    positive: str, negative: str
) -> None:
    pair = checks().check(positive, negative)
    if not pair.passed:
        return
    row = {"concept": "threat", "positive": pair.positive, "negative": pair.negative}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
        (loaded,) = load_concepts(["a.jsonl"], Path(folder)).pairs
    assert (loaded.positive, loaded.negative) == (pair.positive, pair.negative)
