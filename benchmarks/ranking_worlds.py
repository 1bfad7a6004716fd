"""The worlds of `benchmarks/ranking.py`: a planted world, a model, candidates, what is true.

A world is made from its seed alone: text, language model, candidates. Each stands in a folder of
its own and is built once; a build that was interrupted goes on at the candidate it had reached.
The generator was frozen before any metric was tuned (docs/ranking.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safesail.lab.activations import content_mask, read_hook_points, tokenize
from safesail.lab.assets import read_heldout, read_pairs, write_documents, write_pairs
from safesail.lab.autoencoders import load_autoencoder
from safesail.lab.documents import Document, bare_clauses
from safesail.lab.language_model import (
    LanguageModelRecipe,
    encode_documents,
    load_language_model,
    save_language_model,
    train_language_model,
    train_tokenizer,
)
from safesail.lab.lexicon import load_lexicon
from safesail.lab.truth import (
    average_precision,
    carries,
    clause_concepts,
    clause_of_token,
    clause_scores,
)
from safesail.lab.world import World
from safesail.sparse_autoencoder import (
    Activations,
    Recipe,
    site_hook_point,
    train_sae,
    usual_learning_rate,
)

TRAIN_DOCUMENTS = 16_000
CORPUS_DOCUMENTS = 5_000
HELDOUT_DOCUMENTS = 900
PAIRS_PER_CHILD = 54
STEPS = 600

GOOD = 0.7
"""Average precision on held-out clauses from which a feature counts as specific to a concept."""
DUPLICATE = 0.9
"""Correlation of clause scores from which a feature counts as a copy of a better one."""

WIDTH = 1024
HELD_OUT_TOKENS = 20_000
SWEEPS = (
    ((1, 2, 3), "resid_post", "topk", (4, 8, 16, 32, 64)),
    ((0,), "resid_post", "topk", (16,)),
    ((2,), "mlp_out", "topk", (16,)),
    ((2,), "resid_post", "batchtopk", (16,)),
    ((1, 2), "resid_post", "standard", (1,)),
)
"""Layers, site, architecture and sparsities of a world's candidates: 20 in all."""


def recipes(seed: int) -> list[Recipe]:
    """The candidates of world `seed`."""
    return [
        Recipe(
            hook_point=site_hook_point(layer, site),
            architecture=architecture,
            sparsity=sparsity,
            width=WIDTH,
            steps=STEPS,
            batch=512,
            learning_rate=usual_learning_rate(WIDTH),
            seed=seed,
        )
        for layers, site, architecture, sparsities in SWEEPS
        for layer in layers
        for sparsity in sparsities
    ]


@dataclass(frozen=True)
class Truth:
    """What is true of one candidate, on held-out labelled clauses.

    Attributes:
        specific: by concept, features with average precision of at least GOOD, copies once.
        best: by concept, average precision of the best feature.
    """

    specific: dict[str, int]
    best: dict[str, float]

    @property
    def total(self) -> int:
        """The target: concept-specific features of all concepts."""
        return sum(self.specific.values())


def build(seed: int, folder: Path) -> Path:
    """Make world `seed` in `folder/world-<seed>`, unless it is there; returns that folder."""
    home = folder / f"world-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "model" / "config.json").exists():
        _write_text_and_model(seed, home)
    waiting = [r for r in recipes(seed) if not (home / "truth" / f"{_name(r)}.json").exists()]
    if waiting:
        material = _Material.of(home, sorted({recipe.hook_point for recipe in waiting}))
        for recipe in waiting:
            _train_and_judge(recipe, home, material)
    return home


def _name(recipe: Recipe) -> str:
    return recipe.name(LanguageModelRecipe().d_model)


def _write_text_and_model(seed: int, home: Path) -> None:
    world = World(seed)
    train = list(world.documents("train", TRAIN_DOCUMENTS))
    known = bare_clauses(train, world.lexicon)
    heldout = list(world.documents("heldout", HELDOUT_DOCUMENTS, known))
    known |= bare_clauses(heldout, world.lexicon)
    write_documents(train[:CORPUS_DOCUMENTS], home / "corpus.parquet", labels=False)
    write_documents(heldout, home / "heldout.parquet", labels=True)
    write_pairs(world.pairs(PAIRS_PER_CHILD, known), home / "pairs.jsonl")
    recipe = LanguageModelRecipe()
    tokenizer = train_tokenizer([document.text for document in train], recipe)
    ids = encode_documents(tokenizer, [document.text for document in train], recipe.context)
    model = train_language_model(ids, recipe, seed)
    save_language_model(model, tokenizer, home / "model")


def _corpus_texts(home: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(home / "corpus.parquet")["text"].to_pylist()


@dataclass(frozen=True)
class _Material:
    """What all candidates of a world are trained and judged on.

    Attributes:
        corpus: by hook point, activations at the corpus' content tokens, [tokens, d_model].
        heldout: by hook point, those at all tokens of the held-out documents.
        clause: clause of each of those tokens.
        concepts: child path, or nothing, of each clause.
    """

    corpus: dict[str, torch.Tensor]
    heldout: dict[str, torch.Tensor]
    clause: NDArray[np.int64]
    concepts: list[str]

    @classmethod
    def of(cls, home: Path, hook_points: Sequence[str]) -> _Material:
        model, tokenizer = load_language_model(home / "model")
        corpus = read_hook_points(model, tokenize(tokenizer, _corpus_texts(home)), hook_points)
        documents: Sequence[Document] = read_heldout(home / "heldout.parquet")
        table = tokenize(tokenizer, [document.text for document in documents])
        return cls(
            corpus={name: values[content_mask(values)] for name, values in corpus.items()},
            heldout=read_hook_points(model, table, hook_points),
            clause=clause_of_token(documents, table),
            concepts=clause_concepts(documents),
        )


def _train_and_judge(recipe: Recipe, home: Path, material: _Material) -> None:
    content = material.corpus[recipe.hook_point]
    folder = home / "saes" / _name(recipe)
    train_sae(
        recipe,
        Activations([content[:-HELD_OUT_TOKENS]]),
        content[-HELD_OUT_TOKENS:],
        folder,
        about={"model_name": "world", "prepend_bos": True, "context_size": 128},
    )
    truth = _judge(folder, material.heldout[recipe.hook_point], material)
    (home / "truth").mkdir(exist_ok=True)
    (home / "truth" / f"{_name(recipe)}.json").write_text(json.dumps(asdict(truth)), "utf-8")
    print(f"{home.name}: {_name(recipe)} is made and judged", file=sys.stderr)


def _judge(folder: Path, hidden: torch.Tensor, material: _Material) -> Truth:
    """What is true of a trained candidate."""
    names = list(load_lexicon().concepts)
    scores = clause_scores(
        load_autoencoder(folder),
        hidden,
        material.clause,
        len(material.concepts),
        content_mask(hidden),
    )
    precision = average_precision(scores, carries(material.concepts, names))
    columns = dict(zip(names, precision.T, strict=True))
    return Truth(
        specific={name: distinct(scores, column) for name, column in columns.items()},
        best={name: float(column.max()) for name, column in columns.items()},
    )


def distinct(scores: NDArray[np.floating[Any]], precision: NDArray[np.floating[Any]]) -> int:
    """Features with average precision of at least GOOD, best first, without copies of better ones.

    `scores` is [clauses, features], `precision` [features].
    """
    good = np.flatnonzero(precision >= GOOD)
    good = good[np.argsort(-precision[good], kind="stable")]
    if len(good) < 2:
        return len(good)
    alike = np.corrcoef(scores[:, good].T) >= DUPLICATE
    kept: list[int] = []
    for place in range(len(good)):
        if not alike[place, kept].any():
            kept.append(place)
    return len(kept)


def load(home: Path) -> tuple[list[dict[str, str]], dict[str, Truth]]:
    """A built world's contrast pairs, and what is true of each candidate by name."""
    pairs = [asdict(pair) for pair in read_pairs(home / "pairs.jsonl")]
    truths = {
        path.stem: Truth(**json.loads(path.read_text("utf-8")))
        for path in sorted((home / "truth").glob("*.json"))
    }
    return pairs, truths


if __name__ == "__main__":  # builds worlds ahead of time: seeds, then nothing else
    torch.set_num_threads(1)
    for number in sys.argv[2:]:
        build(int(number), Path(sys.argv[1]))
