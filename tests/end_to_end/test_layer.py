"""`safesail explain --layer 12` in a fresh study runs whatever is missing."""

from __future__ import annotations

import json
from pathlib import Path

import models
import pandas as pd
from training import train_sae

CONCEPTS = {
    "fraud": ("the dog sold a forged letter", "the dog sold a signed letter"),
    "violence": ("nobody stabbed the small cat", "nobody petted the small cat"),
}
ENDINGS = ["by the sea", "in the north", "on the mat", "over the boat", "and sat", "twice"]


def test_layer_twelve_of_a_fresh_study(tmp_path: Path, safesail) -> None:
    model = models.tiny_llama(tmp_path / "model", num_hidden_layers=14)
    pairs = [
        {
            "concept": concept,
            "positive": f"{positive} {ending} {n}",
            "negative": f"{negative} {ending} {n}",
        }
        for concept, (positive, negative) in CONCEPTS.items()
        for n, ending in enumerate(ENDINGS * 4)
    ]
    (tmp_path / "concepts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    texts = [f"{p['positive']}. {q['negative']}." for p in pairs for q in pairs[::5]]
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    for layer in (6, 12):
        hook_point = f"blocks.{layer}.hook_resid_post"
        train_sae(tmp_path / f"saes/layer{layer}", model, texts, hook_point)
    init = ["--model", "./model", "--sae", "saes/*", "--concepts", "concepts.jsonl"]
    safesail("init", "study", *init, "--corpus", "corpus.txt")

    done = safesail("explain", "--layer", "12", "--limit", "6", "--study", "study", "--json")

    result = json.loads(done.stdout)
    assert (result["sae"], result["layer"]) == ("layer12", 12)
    assert len(result["explanations"]) == 6
    assert {row["explainer"] for row in result["explanations"]} == {"lexical"}
    rankings = pd.read_parquet(tmp_path / "study/rankings.parquet")
    # Only the candidates at layer 12 are ranked: nothing was spent on the other.
    assert set(rankings["sae"]) == {"layer12"}
    assert set(rankings["hook_point"]) == {"blocks.12.hook_resid_post"}
    contexts = pd.read_parquet(tmp_path / "study/contexts/layer12")
    assert set(contexts["feature"]) >= {
        row["feature"] for row in result["explanations"] if row["status"] == "scored"
    }
    # The other candidate joins the table when it is asked for.
    safesail("rank-saes", "--study", "study")
    rankings = pd.read_parquet(tmp_path / "study/rankings.parquet")
    assert set(rankings["sae"]) == {"layer6", "layer12"}
