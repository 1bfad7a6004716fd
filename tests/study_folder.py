"""A small whole study on disk: tiny model, three SAEs, a few concepts, a corpus that holds them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import models
import torch
from safetensors.torch import load_file, save_file

from safesail.language_model import LanguageModel
from safesail.pipeline import load_results
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import Study
from safesail.tables import FEATURES, read_table

# Texts that the tiny tokenizer cuts into few tokens.
_CONCEPTS = {
    "violence/assault": ("the dog sat on the cat", "the dog sat by the cat"),
    "violence/threat": ("he read a letter to her", "he wrote a letter to her"),
    "fraud": ("nobody sailed the boat", "a boat sailed north"),
}
_FILLER = ["cold", "sea", "small", "door", "twice", "mat", "over", "and", "north", "numbers"]
SAES = {
    "first": ("jumprelu", "blocks.1.hook_resid_post"),
    "second": ("standard", "blocks.1.hook_resid_post"),
    "upper": ("gated", "blocks.2.hook_resid_post"),
}
# Keys that other tests change; values as TOML.
_SETTINGS = """
[model]
name = "model"
device = "cpu"

[candidates]
saes = ["saes/*"]

[concepts]
files = ["concepts.jsonl"]

[corpus]
max_tokens = 4000
[[corpus.sources]]
path = "corpus.jsonl"

[ranking]
sample_tokens = 1000
margin = 0.25
features_per_concept = 12

[collection]
top = 3
per_level = 2
silent = 8
hard_silent = 8
"""


def make_study(folder: Path) -> Path:
    """Write model, SAEs, concepts, corpus and safesail.toml into a new folder."""
    models.tiny_llama(folder / "model")
    for seed, (name, (architecture, hook_point)) in enumerate(SAES.items()):
        models.random_sae(
            folder / "saes" / name,
            architecture,
            hook_point=hook_point,
            width=64,
            seed=seed,
            # One cuts documents shorter than the others do.
            metadata={"context_size": 32 if name == "upper" else 64},
        )
    generator = random.Random(0)
    pairs, sentences = [], []
    for concept, (positive, negative) in _CONCEPTS.items():
        for number in range(12):
            ending = " ".join(generator.choices(_FILLER, k=4))
            texts = {"positive": f"{positive} {ending} {number}"}
            texts["negative"] = f"{negative} {ending} {number}"
            pairs.append({"concept": concept, **texts})
            sentences += texts.values()
    documents = [
        {"text": f"{generator.choice(sentences)} {' '.join(generator.choices(_FILLER, k=20))}"}
        for _ in range(150)
    ]
    for name, rows in (("concepts", pairs), ("corpus", documents)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "safesail.toml").write_text(_SETTINGS, encoding="utf-8")
    _fit_decoders(folder, [document["text"] for document in documents])
    return folder


def _fit_decoders(folder: Path, texts: list[str]) -> None:
    """Give the random SAEs decoders that reconstruct better than the mean, by least squares."""
    model = LanguageModel.load(str(folder / "model"), device="cpu")
    pieces = [p for t in texts for p in model.tokenize(t, document="", prepend_bos=True)]
    for candidate in find_candidates(["saes/*"], folder):
        sae = SparseAutoencoder.load(candidate, device="cpu")
        hidden = torch.cat(
            [
                model.activations(batch, [sae.hook_point])[sae.hook_point][batch.content_mask]
                for batch in model.batches(pieces, prepend_bos=True)
            ]
        )
        path = folder / "saes" / candidate.name / "sae_weights.safetensors"
        weights = load_file(path)
        wanted = hidden - weights["b_dec"]
        solved = torch.linalg.lstsq(sae.encode(hidden), wanted, driver="gelsd").solution
        weights["W_dec"] = solved.contiguous()
        save_file(weights, path)


def copy_study(study: Path, folder: Path) -> Path:
    """A study of one's own, results included, to change."""
    return Path(shutil.copytree(study, folder))


def change_setting(study: Path, old: str, new: str) -> None:
    """Edit safesail.toml."""
    path = study / "safesail.toml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def contents(study: Path) -> dict[str, tuple[int, bytes]]:
    """Every result with its time of change and its bytes."""
    names = ("rankings.parquet", "ranking.png", "features", "contexts", "explanations")
    found = [p for name in names for p in [study / name, *(study / name).rglob("*")] if p.is_file()]
    return {str(p.relative_to(study)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def statuses(study: Path, sae: str) -> dict[int, str]:
    """Status of each chosen feature."""
    rows = read_table(study / "features" / f"{sae}.parquet", FEATURES).to_pylist()
    return {row["feature"]: row["status"] for row in rows}


def with_contexts(study: Path, sae: str) -> list[int]:
    """Features that have contexts."""
    table = load_results(Study.open(study), "contexts", sae)
    return sorted(set(table["feature"].to_pylist()))
