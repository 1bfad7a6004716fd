"""Grades and levels of the known-truth judge: from what is named alone, with the errors set."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer

from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.judge import QUALITIES, Quality, expected_grades
from safesail.lab.judge._noise import generator
from safesail.lab.judge._seeing import grade, sights, simulate
from safesail.lab.lexicon import load_lexicon

SEGMENT, WINDOW = 6, 32


@cache
def windows(concept: str, count: int = 150) -> list[tuple[list[str], list[bool]]]:
    """Tokens of windows of the held-out text, half of which carry the concept.

    A token carries it where it lies in a clause of the concept, at or after its trigger.
    """
    tokenizer = AutoTokenizer.from_pretrained(lab_folder() / "model")
    triggers = load_lexicon().concepts[concept.partition("/")[0]].trigger_words()
    found: dict[bool, list[tuple[list[str], list[bool]]]] = {True: [], False: []}
    for document in read_heldout(lab_folder() / "heldout.parquet"):
        carrying = np.zeros(len(document.text) + 1, bool)
        for clause in document.clauses:
            if clause.concept.startswith(concept):
                text = document.text[clause.start : clause.end]
                at = max(text.find(f" {word} ") for word in triggers)
                carrying[clause.start + at + 2 : clause.end + 1] = True
        offsets = tokenizer(document.text, return_offsets_mapping=True)["offset_mapping"]
        for first in range(0, len(offsets) - WINDOW, WINDOW):
            spans = offsets[first : first + WINDOW]
            tokens = [document.text[start:end] for start, end in spans]
            carries = [bool(carrying[end]) for _, end in spans]
            found[any(carries)].append((tokens, carries))
    half = min(count // 2, *map(len, found.values()))
    assert half >= 30
    return found[True][:half] + found[False][:half]


def items(concept: str) -> tuple[list[str], NDArray[np.bool_]]:
    """Segments of six tokens with six before, and whether they carry the concept."""
    texts, truths = [], []
    for tokens, carries in windows(concept):
        for start in range(0, WINDOW, SEGMENT):
            segment = slice(start, start + SEGMENT)
            before = "".join(tokens[max(0, start - SEGMENT) : start])
            texts.append(f"{before}⟪{''.join(tokens[segment])}⟫")
            truths.append(any(carries[segment]))
    return texts, np.array(truths)


def graded(explanation: str, concept: str, quality: str | Quality = "good") -> NDArray[np.int64]:
    """Grades of all items of a concept, 40 a prompt."""
    chosen = QUALITIES[quality] if isinstance(quality, str) else quality
    texts, _ = items(concept)
    digits = []
    for number, first in enumerate(range(0, len(texts), 40)):
        prompt = texts[first : first + 40]
        digits += grade(explanation, prompt, "items", chosen, generator(number, explanation))
    return np.array(digits).ravel()


@pytest.mark.parametrize("concept", ["fraud", "drugs", "violence/murder"])
def test_the_right_explanation_scores_high_and_a_wrong_one_at_chance(concept: str) -> None:
    _, truth = items(concept)
    floor = {"perfect": 0.9, "good": 0.85, "medium": 0.8, "poor": 0.7}
    for quality, least in floor.items():
        assert roc_auc_score(truth, graded(concept, concept, quality)) > least
    assert roc_auc_score(truth, graded("mountains and rivers", concept, Quality())) == 0.5
    standard_error = np.sqrt((1 / truth.sum() + 1 / (~truth).sum()) / 12)
    for other in ("self_harm", "weapons/blades", "privacy"):
        for quality in ("good", "medium", "poor"):
            area = roc_auc_score(truth, graded(other, concept, quality))
            # Windows that hold a concept's clause have less room for another's.
            assert area == pytest.approx(0.5, abs=3 * standard_error + 0.02), (other, quality)


@pytest.mark.parametrize("task", ["segments", "items", "detection", "fuzzing"])
def test_graded_as_often_as_expected(task: str) -> None:
    """Frequencies over 3,000 prompts, within five standard errors; prompts share errors."""
    quality = Quality(0.2, 0.02, 0.8, bias=0.3)
    entries = {
        "segments": [["The clerk forged", " the visa by", " the river."], ["It rained."]],
        "items": ["The clerk⟪ forged the visa⟫", "The⟪ clerk forged⟫", "The⟪ cook sang loudly⟫"],
        "detection": ["A cook sang. The clerk forged the visa.", "The clerk sang in the mill."],
        "fuzzing": ["The clerk forged the⟪ visa⟫.", "The⟪ clerk⟫ forged the⟪ will⟫.", "A⟪ cook⟫"],
    }[task]
    prompts = 3_000
    drawn = np.array(
        [
            list(
                itertools.chain.from_iterable(
                    grade("fraud", entries, task, quality, generator(number))  # type: ignore[arg-type]
                )
            )
            for number in range(prompts)
        ]
    )
    expected = expected_grades("fraud", entries, quality, task=task)  # type: ignore[arg-type]
    assert expected.shape == (drawn.shape[1], 4)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    frequencies = np.stack([(drawn == digit).mean(axis=0) for digit in range(4)], axis=1)
    error = np.sqrt(expected * (1 - expected) / prompts)
    assert (np.abs(frequencies - expected) <= 5 * error + 1e-12).all()


def test_mean_rates_are_those_set_whatever_the_prompt_effect() -> None:
    for quality in QUALITIES.values():
        nodes = quality.quadrature()
        assert sum(weight * misses for weight, misses, _ in nodes) == pytest.approx(quality.misses)
        assert sum(weight * alarms for weight, _, alarms in nodes) == pytest.approx(
            quality.false_alarms
        )
    careless, careful = QUALITIES["poor"].rates(1.0), QUALITIES["poor"].rates(-1.0)
    assert careless[0] > 0.3 > careful[0]
    assert careless[1] > 0.03 > careful[1]


@given(st.floats(0, 1), st.floats(0, 100))
@example(5e-324, 0.5)
@example(1 - 2**-53, 0.5)
@example(0.2, 5e-324)
def test_no_rate_is_too_small_or_large_for_a_prompt_effect(rate: float, deviation: float) -> None:
    nodes = Quality(rate, 0.0, deviation).quadrature()
    assert sum(weight * misses for weight, misses, _ in nodes) == pytest.approx(rate, abs=1e-12)


def test_tokens_are_missed_by_run_and_falsely_seen_one_by_one() -> None:
    tokens = [" The", " clerk", " forged", " the", " visa", ".", " A", " cook", " sang", "."]
    quality = Quality(0.25, 0.05)
    levels = np.array(simulate("fraud", [tokens] * 20_000, quality, np.random.default_rng(0)))
    run, absent = levels[:, 2:6], levels[:, [0, 1, 6, 7, 8, 9]]
    missed = (run == 0).all(axis=1)
    assert ((run > 0).all(axis=1) | missed).all()
    assert missed.mean() == pytest.approx(0.25, abs=0.01)
    assert (absent > 0).mean() == pytest.approx(0.05, abs=0.003)
    assert run[~missed][:, -1].tolist() == [9] * (~missed).sum()
    assert 3 < run[~missed][0, 0] < 9


def test_a_larger_piece_is_falsely_seen_more_often() -> None:
    quality = Quality(0, 0.05)
    long, short = expected_grades("fraud", ["⟪a b c d e f⟫", "a b c⟪ d⟫"], quality)
    assert long[0] == pytest.approx(0.95**6)
    assert short[0] == pytest.approx(0.95)
    assert long[1:] / long[1:].sum() == pytest.approx([0.5, 0.3, 0.2])


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    explanation=st.text(max_size=40),
    bias=st.floats(-4, 4),
)
def test_any_text_can_be_graded(text: str, explanation: str, bias: float) -> None:
    quality = Quality(0.1, 0.1, 0.5, bias)
    for task, largest in (("items", 3), ("detection", 1), ("fuzzing", 1)):
        (row,) = expected_grades(explanation, [text], quality, task=task)  # type: ignore[arg-type]
        assert row.sum() == pytest.approx(1)
        assert row[largest + 1 :].sum() == 0
    tokens = [text[i : i + 3] for i in range(0, len(text), 3)]
    (levels,) = simulate(explanation, [tokens], quality, np.random.default_rng(0))
    assert len(levels) == len(tokens)
    assert all(0 <= level <= 10 for level in levels)


def test_items_and_segments_of_a_window_agree() -> None:
    """The same words before and in a segment deserve the same grade, whatever the format."""
    for tokens, _ in windows("fraud")[:40]:
        pieces = ["".join(tokens[n : n + SEGMENT]) for n in range(0, WINDOW, SEGMENT)]
        whole = [sight.grade for sight in sights("fraud", pieces, "segments")]
        alone = [
            sights("fraud", f"{''.join(pieces[:n])}⟪{piece}⟫", "items")[0].grade
            for n, piece in enumerate(pieces)
        ]
        assert np.mean(np.array(whole) == alone) >= 0.8


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("good", 0.9, 1.15), ("medium", 1.15, 1.5), ("poor", 1.9, 2.6)]
)
def test_errors_of_a_prompt_go_together_as_much_as_set(
    name: str, lowest: float, highest: float
) -> None:
    """Design effect of the AUROC of 40 items a prompt, half of them active: the variance over
    prompts, over that where each item has a prompt of its own.
    """
    random = np.random.default_rng(1)
    texts, truth = items("fraud")
    quality = QUALITIES[name]
    effects = random.standard_normal(400)
    # Of every item and effect the distribution of grades.
    seen = [sights("fraud", text, "items")[0] for text in texts]
    tables = np.empty((len(effects), len(texts), 4))
    for row, effect in zip(tables, effects, strict=True):
        rates = quality.rates(float(effect))
        known = {sight: sight.distribution(*rates, 0.0) for sight in set(seen)}
        row[:] = [known[sight] for sight in seen]
    tables = tables.cumsum(axis=2)

    def areas(shared: bool) -> NDArray[np.float64]:
        prompts = 12_000
        drawn = []
        common = random.integers(len(effects), size=(prompts, 1))
        for wanted in (truth, ~truth):
            chosen = random.choice(np.flatnonzero(wanted), size=(prompts, 20))
            own = random.integers(len(effects), size=chosen.shape)
            chances = tables[common if shared else own, chosen]
            drawn.append((random.random((prompts, 20, 1)) > chances).sum(axis=2))
        difference = drawn[0][:, :, None] - drawn[1][:, None, :]
        return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2))

    assert lowest <= areas(True).var() / areas(False).var() <= highest
