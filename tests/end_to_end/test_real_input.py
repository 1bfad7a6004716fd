"""Model folders of other families than the lab's, public contrast pairs, real moderation texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import models
import pandas as pd
import pytest
from training import train_sae

FAMILIES: dict[str, tuple[Callable[..., Path], bool]] = {
    "gpt2": (lambda folder: models.tiny_gpt2(folder, n_positions=512), True),
    # Qwen2 has no BOS token, and its SAEs are trained without one.
    "qwen2": (lambda folder: models.tiny_qwen2(folder, max_position_embeddings=512), False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_public_pairs_and_moderation_texts(
    family: str, tmp_path: Path, public_data: Path, safesail
) -> None:
    save, prepend_bos = FAMILIES[family]
    model = save(tmp_path / "model")
    corpus = public_data / "openai_moderation" / "data.jsonl"
    texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")][:150]
    train_sae(
        tmp_path / "sae", model, texts, "blocks.0.hook_mlp_out", prepend_bos=prepend_bos, steps=80
    )
    pairs = public_data / "contrast_pairs" / "data.jsonl"
    init = ["--model", "./model", "--sae", "./sae", "--corpus", str(corpus)]
    safesail("init", "study", *init, "--concepts", str(pairs))
    shorten(tmp_path / "study/safesail.toml")

    ranked = json.loads(safesail("rank-saes", "--study", "study", "--json").stdout)["rows"]
    concepts = {row["concept"]: row["pairs"] for row in ranked}
    rows = [json.loads(line) for line in pairs.open(encoding="utf-8")]
    # A pair that stands twice in the file counts once.
    distinct = {(row["concept"], row["positive"], row["negative"]) for row in rows}
    assert concepts == Counter(concept for concept, _, _ in distinct)
    assert len(concepts) == 14
    assert {row["health"] for row in ranked} == {"ok"}
    assert all(0 < row["fvu"] < 1 for row in ranked)

    (collected,) = json.loads(
        safesail("collect", "-c", "violence", "-c", "hate", "--limit", "12", "--study", "study",
                 "--json").stdout
    )  # fmt: skip
    features = {row["feature"] for row in collected["features"]}
    assert len(features) == 12
    read = "select distinct feature from read_parquet('{}')".format(
        tmp_path / "study/contexts/sae/*.parquet"
    )
    fired = {row["feature"] for row in collected["features"] if row["fired"]}
    assert {feature for (feature,) in duckdb.sql(read).fetchall()} == fired

    select = ["-c", "violence", "-c", "hate", "--limit", "12", "--study", "study"]
    explained = json.loads(safesail("explain", *select, "--json").stdout)["explanations"]
    assert {row["feature"] for row in explained} == features
    scored = [row for row in explained if row["status"] == "scored"]
    assert scored
    for row in scored:
        assert row["correlation_low"] <= row["correlation"] <= row["correlation_high"]

    safesail("export", "--format", "csv", "--output", "out.csv", "--study", "study")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["feature"]) == [row["feature"] for row in explained]


def shorten(configuration: Path) -> None:
    """Let the study read less: the test is about the way through, not about the numbers."""
    text = configuration.read_text(encoding="utf-8")
    for key, value in (("sample_tokens", 20_000), ("max_tokens", 60_000)):
        line = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
        text = text.replace(line, f"{key} = {value}")
    text = text.replace("concept_texts = true", "concept_texts = false")
    configuration.write_text(text, encoding="utf-8")
