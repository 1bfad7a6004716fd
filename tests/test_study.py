"""Settings in TOML, their faults, and the refusal to mix results."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.errors import ConfigurationError, StudyConflictError
from safesail.study import (
    CandidateSettings,
    CollectionSettings,
    ConceptSettings,
    Configuration,
    CorpusSettings,
    CorpusSource,
    JudgeSettings,
    ModelSettings,
    RankingSettings,
    Study,
    require_same,
)

MINIMAL = """
[model]
name = "m"
[candidates]
saes = ["s"]
[concepts]
files = ["c.jsonl"]
[corpus]
[[corpus.sources]]
path = "d.jsonl"
"""

# Every character that TOML can hold: all but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
lists = st.lists(texts, min_size=1, max_size=3)
counts = st.integers(1, 10**6)
sources = st.one_of(
    st.builds(CorpusSource, path=texts, text_column=texts),
    st.builds(CorpusSource, hub=texts, configuration=st.none() | texts, split=texts),
)
configurations = st.builds(
    Configuration,
    model=st.builds(ModelSettings, name=texts, device=texts),
    candidates=st.builds(CandidateSettings, saes=lists),
    concepts=st.builds(ConceptSettings, files=lists),
    corpus=st.builds(
        CorpusSettings,
        sources=st.lists(sources, min_size=1, max_size=3),
        concept_texts=st.booleans(),
        max_tokens=st.integers(10**6, 2**53),
    ),
    ranking=st.builds(
        RankingSettings,
        sample_tokens=st.integers(1_000, 10**6),
        margin=st.floats(0, 1e300),
        pooling=st.sampled_from(["max", "mean", "last"]),
        false_discovery_rate=st.floats(0, 1, exclude_min=True, exclude_max=True),
        features_per_concept=counts,
        seed=st.integers(0, 2**63 - 1),
    ),
    collection=st.builds(CollectionSettings, top=counts, per_level=counts, silent=counts),
    judge=st.builds(
        JudgeSettings, url=texts, model=st.none() | texts, concurrency=st.integers(1, 128)
    ),
)


@given(configurations)
@settings(deadline=None)
def test_toml_round_trips(configuration: Configuration) -> None:
    assert Configuration.from_toml(configuration.to_toml(), "x") == configuration


@given(configurations)
@settings(deadline=None, max_examples=20)
def test_every_key_has_a_comment_above(configuration: Configuration) -> None:
    lines = [line for line in configuration.to_toml().split("\n") if line]
    explained = 0
    for above, line in pairwise(lines):
        key = line.removeprefix("# ").split(" = ")[0]
        is_key = key.isidentifier() and " = " in line and not line.startswith("  ")
        if is_key or line.startswith("["):
            assert above.startswith("# "), line
            assert not above.endswith("None")
            explained += 1
    sections = configuration.model_dump()
    keys = sum(len(section) for section in sections.values()) - 1
    keys += len(CorpusSource.model_fields) * len(configuration.corpus.sources)
    assert explained == keys + len(sections) + len(configuration.corpus.sources)


def test_what_is_left_out_has_the_documented_default() -> None:
    found = Configuration.from_toml(MINIMAL, "x")
    assert found.ranking.margin == 0.5
    assert found.ranking.false_discovery_rate == 0.05
    assert found.ranking.features_per_concept == 200
    assert found.ranking.pooling == "max"
    assert found.judge.model is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[corpus]", "[corpus]\nmax_token = 5"), r"`corpus\.max_token` is an unknown.*_tokens"),
        (("[model]", "[modle]"), r"`model` is missing; `modle` is an unknown key.*`model`"),
        (("path =", "pth ="), r"`corpus\.sources\.0\.pth` is an unknown key.*`path`"),
        (("[model]", "[model]\nzzz = 1"), r"`model\.zzz` is an unknown key \(known here: device"),
        (('"m"', "5"), r"`model\.name`: input should be a valid string \(found 5\)"),
        (('"m"', "2024-01-01"), r"`model\.name`: .*found .*2024-01-01"),
        (('["s"]', "[5]"), r"`candidates\.saes\.0`: .*valid string \(found 5\)"),
        (('["s"]', '"s"'), r"`candidates\.saes`: .*list"),
        (("[corpus]", "[corpus]\nmax_tokens = -3"), r"`corpus\.max_tokens`: .*1000.*\(found -3\)"),
        (('path = "d.jsonl"', ""), r"`corpus\.sources\.0`: give exactly one of `path` and `hub`"),
        (('path = "d.jsonl"', 'path = "d"\nhub = "h"'), r"exactly one of `path` and `hub`"),
        (("[corpus]", "[corpus]\nmax_tokens = 2000"), r"sample_tokens \(200,000\) is more than"),
        (("[model]", '[ranking]\npooling = "sum"\n[model]'), r"`ranking\.pooling`: .*'max'"),
        (("[model]", "[ranking]\nmargin = inf\n[model]"), r"`ranking\.margin`: .*finite"),
        (("[model]", "[ranking]\nmargin = nan\n[model]"), r"`ranking\.margin`: "),
        (("[model]", "[ranking]\nseed = -1\n[model]"), r"`ranking\.seed`: .*found -1"),
        (('"m"', '"m'), r"not valid TOML.*line"),
        (("[model]", "[judge]\nkey = 'sk-1'\n[model]"), r"`judge\.key` is an unknown key"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_place(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Configuration.from_toml(MINIMAL.replace(*change), "some.toml")
    assert str(caught.value).startswith("some.toml")
    assert "\n" not in str(caught.value)


def test_several_faults_are_named_together() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.name.*candidates\.saes"):
        Configuration.from_toml(MINIMAL.replace('"m"', "1").replace('["s"]', "5"), "x")


def test_open_reads_the_folder(tmp_path: Path) -> None:
    (tmp_path / "safesail.toml").write_text(MINIMAL, encoding="utf-8")
    study = Study.open(tmp_path)
    assert study.configuration.model.name == "m"
    assert study.resolve("../x") == tmp_path.parent / "x"


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "safesail.toml").write_text(MINIMAL, encoding="utf-8-sig")
    assert Study.open(tmp_path).configuration.model.name == "m"


def test_no_configuration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no safesail\.toml in .*safesail init"):
        Study.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot read"):
        Study.open(tmp_path / "file")


def test_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "safesail.toml").write_bytes(MINIMAL.replace('"m"', '"é"').encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"safesail\.toml is not UTF-8"):
        Study.open(tmp_path)


def test_another_judge_changes_nothing_else(tmp_path: Path) -> None:
    study = Study(tmp_path, Configuration.from_toml(MINIMAL, "x"))
    changed = study.with_judge(url="http://localhost/v1", model="j").configuration
    assert (changed.judge.url, changed.judge.model) == ("http://localhost/v1", "j")
    assert changed.model_copy(update={"judge": study.configuration.judge}) == study.configuration
    assert study.with_judge().configuration == study.configuration


@pytest.mark.parametrize("tag", ["", "e", "english", "en_GB", "en-", "en ", "en\n", "zh-中"])
def test_a_language_is_a_tag(tmp_path: Path, tag: str) -> None:
    study = Study(tmp_path, Configuration.from_toml(MINIMAL, "x"))
    with pytest.raises(ConfigurationError, match="`language`: must be a language tag") as raised:
        study.with_judge(language=tag)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tag", "kept"), [("EN", "en"), ("zh-Hans-CN", "zh-Hans-CN"), ("De-1996", "de-1996")]
)
def test_the_same_language_is_named_alike(tmp_path: Path, tag: str, kept: str) -> None:
    study = Study(tmp_path, Configuration.from_toml(MINIMAL, "x"))
    assert study.with_judge(language=tag).configuration.judge.language == kept


def test_changed_settings_are_named_old_and_new() -> None:
    stored = {"ranking.margin": 0.5, "model": "a", "gone": 1, "long": "x" * 200}
    present = {"ranking.margin": 0.25, "model": "a", "new": [2], "long": "y" * 200}
    with pytest.raises(StudyConflictError) as caught:
        require_same(stored, present, Path("rankings.parquet"))
    message = str(caught.value)
    for part in (
        "rankings.parquet",
        "ranking.margin was 0.5, is 0.25",
        "gone was 1, is null",
        "new was null, is [2]",
        "--overwrite",
    ):
        assert part in message
    assert "model was" not in message
    assert len(message) < 500


def test_equal_settings_pass() -> None:
    require_same({"a": 1.0, "b": None}, {"a": 1}, Path("x"))


def test_comments_are_no_settings() -> None:
    configuration = Configuration.from_toml(MINIMAL, "x")
    read = tomllib.loads(configuration.to_toml())
    assert "model" not in read["judge"]
    assert "hub" not in read["corpus"]["sources"][0]
