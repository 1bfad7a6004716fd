"""`python -m safesail.lab.build --out DIR`: makes every file of the lab from fixed seeds.

Text is the same byte for byte on every run; weights agree up to floating-point order.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from safesail.lab.activations import TokenTable, content_mask, read_hook_points, tokenize
from safesail.lab.assets import write_documents, write_pairs, write_vocabulary
from safesail.lab.autoencoders import (
    SEED,
    STEPS,
    SWEEPS,
    load_autoencoder,
    publish,
    train_in_study,
    untrained_autoencoder,
    write_study,
)
from safesail.lab.documents import ContrastPair, Document, bare_clauses
from safesail.lab.language_model import (
    LanguageModelRecipe,
    cross_entropy_per_token,
    encode_documents,
    load_language_model,
    ngram_cross_entropy,
    save_language_model,
    train_language_model,
    train_tokenizer,
)
from safesail.lab.lexicon import load_lexicon
from safesail.lab.truth import (
    average_precision,
    best_features,
    carries,
    clause_concepts,
    clause_of_token,
    clause_scores,
    word_list_scores,
)
from safesail.lab.world import World
from safesail.sparse_autoencoder import USUAL_EXPANSION
from safesail.tables import TRAINING, read_table

TEXT_SEED = 20261121
WEIGHT_SEED = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is made; the defaults are those of the committed lab."""

    train_documents: int = 16_000
    corpus_documents: int = 5_000
    heldout_documents: int = 900
    pairs_per_child: int = 16
    autoencoder_steps: int = STEPS


@dataclass(frozen=True, slots=True)
class LabText:
    """All text of the lab; no clause of `heldout` or `pairs` stands in `train`."""

    train: list[Document]
    heldout: list[Document]
    pairs: list[ContrastPair]


def write_text(out: Path, sizes: Sizes) -> LabText:
    """Makes and writes corpus, held-out text, vocabulary and contrast pairs under `out`.

    The corpus is the first part of the training text.
    """
    world = World(TEXT_SEED)
    train = list(world.documents("train", sizes.train_documents))
    known = bare_clauses(train, world.lexicon)
    heldout = list(world.documents("heldout", sizes.heldout_documents, known))
    known |= bare_clauses(heldout, world.lexicon)
    pairs = list(world.pairs(sizes.pairs_per_child, known))
    out.mkdir(parents=True, exist_ok=True)
    write_documents(train[: sizes.corpus_documents], out / "corpus.parquet", labels=False)
    write_documents(heldout, out / "heldout.parquet", labels=True)
    write_vocabulary(world.lexicon, out / "vocabulary.json")
    write_pairs(pairs, out / "pairs.jsonl")
    return LabText(train, heldout, pairs)


def word_list_figures(
    heldout: Sequence[Document], lists: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Average precision of each concept's list of words on held-out clauses."""
    positive = carries(clause_concepts(heldout), list(lists))
    return {
        name: average_precision(
            word_list_scores(heldout, words)[:, None], positive[:, [column]]
        ).item()
        for column, (name, words) in enumerate(lists.items())
    }


@dataclass(frozen=True, slots=True)
class Heldout:
    """Held-out documents as the autoencoders are judged on them."""

    documents: list[Document]
    table: TokenTable
    hidden: dict[str, Tensor]

    def figures(self, autoencoder: Any, hook_point: str, names: Sequence[str]) -> dict[str, Any]:
        """L0, FVU, dead share (content tokens) and best-feature AP by clause for `names`."""
        hidden = self.hidden[hook_point]
        content = content_mask(hidden)
        concepts = clause_concepts(self.documents)
        clause = clause_of_token(self.documents, self.table)
        scores = clause_scores(autoencoder, hidden, clause, len(concepts), content)
        best = best_features(scores, concepts, names)
        with torch.inference_mode():
            inputs = hidden[content]
            codes = autoencoder.encode(inputs)
            error = (inputs - autoencoder.decode(codes)).pow(2).sum()
            variance = (inputs - inputs.mean(0)).pow(2).sum()
        return {
            "l0": float((codes > 0).sum(1).float().mean()),
            "fvu": float(error / variance),
            "dead_share": float((codes > 0).sum(0).eq(0).float().mean()),
            "best_feature": {name: feature.feature for name, feature in best.items()},
            "average_precision": {n: feature.average_precision for n, feature in best.items()},
            "mean_average_precision": float(
                np.mean([feature.average_precision for feature in best.values()])
            ),
        }


def make_model(out: Path, text: LabText, ready: Path | None) -> dict[str, Any]:
    """Trains tokenizer and language model, or takes ready ones; returns their figures.

    Both are saved to `out/model`, a ready model byte for byte.
    """
    recipe = LanguageModelRecipe()
    if ready is None:
        tokenizer = train_tokenizer([document.text for document in text.train], recipe)
        documents = [document.text for document in text.train]
        model = train_language_model(
            encode_documents(tokenizer, documents, recipe.context), recipe, WEIGHT_SEED
        )
        save_language_model(model, tokenizer, out / "model")
    elif ready.resolve() != (out / "model").resolve():
        shutil.copytree(ready, out / "model", dirs_exist_ok=True)
    model, tokenizer = load_language_model(out / "model")
    train, heldout = (
        encode_documents(tokenizer, [document.text for document in part], recipe.context)
        for part in (text.train, text.heldout)
    )
    unigram, bigram = ngram_cross_entropy(train, heldout, recipe.vocabulary)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_tokens": sum(len(ids) - 1 for ids in train),
        "heldout_cross_entropy": cross_entropy_per_token(model, heldout),
        "unigram_cross_entropy": unigram,
        "bigram_cross_entropy": bigram,
    }


def train_autoencoders(out: Path, text: LabText, sizes: Sizes) -> dict[str, Any]:
    """Trains every candidate by `safesail train-saes`; returns figures by candidate.

    The study that they are trained in lies in `out/study` until all are made, so that a build
    that was stopped goes on. The last entries are the best candidate by mean average precision,
    and the figures of its first weights.
    """
    model, tokenizer = load_language_model(out / "model")
    d_model = model.config.hidden_size
    names = list(load_lexicon().concepts)
    study = out / "study"
    files = (out / part for part in ("model", "corpus.parquet", "pairs.jsonl"))
    write_study(study, *(path.resolve() for path in files))
    for sweep in SWEEPS:
        train_in_study(study, sweep.options(sizes.autoencoder_steps, SEED))
    recipes = {
        recipe.name(d_model): recipe
        for sweep in SWEEPS
        for recipe in sweep.recipes(sizes.autoencoder_steps, SEED, USUAL_EXPANSION * d_model)
    }
    table = tokenize(tokenizer, [document.text for document in text.heldout])
    hook_points = sorted({recipe.hook_point for recipe in recipes.values()})
    judged = Heldout(text.heldout, table, read_hook_points(model, table, hook_points))
    rows = read_table(study / "training.parquet", TRAINING).to_pylist()
    seconds = {row["sae"]: row["seconds"] for row in rows}
    candidates: dict[str, dict[str, Any]] = {}
    for name, recipe in recipes.items():
        publish(study / "saes" / name, out / "saes" / name)
        result = judged.figures(load_autoencoder(out / "saes" / name), recipe.hook_point, names)
        result["seconds"] = seconds[name]
        candidates[name] = result
        typer.echo(
            f"{name}: L0 {result['l0']:.1f}, FVU {result['fvu']:.3f}, "
            f"dead {result['dead_share']:.2f}, AP {result['mean_average_precision']:.3f}"
        )
    best = max(candidates, key=lambda name: candidates[name]["mean_average_precision"])
    untrained = untrained_autoencoder(recipes[best], d_model)
    shutil.rmtree(study)
    corpus = tokenize(tokenizer, [d.text for d in text.train[: sizes.corpus_documents]])
    return {
        "corpus_tokens": len(corpus.document),
        "autoencoders": candidates,
        "best_autoencoder": best,
        "untrained_autoencoder": judged.figures(untrained, recipes[best].hook_point, names),
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    language_model: Annotated[
        Path | None, typer.Option(help="Trained language model to take; trained by default.")
    ] = None,
) -> None:
    """Makes the lab: text, contrast pairs, language model, autoencoders and their figures."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    started = perf_counter()
    sizes = Sizes()
    text = write_text(out, sizes)
    concepts = load_lexicon().concepts
    figures: dict[str, Any] = {
        "text_seed": TEXT_SEED,
        "weight_seed": WEIGHT_SEED,
        "word_list_average_precision": word_list_figures(
            text.heldout, {name: concept.trigger_words() for name, concept in concepts.items()}
        ),
        "object_list_average_precision": word_list_figures(
            text.heldout, {name: concept.object_nouns() for name, concept in concepts.items()}
        ),
        "language_model": make_model(out, text, language_model),
    }
    figures |= train_autoencoders(out, text, sizes)
    figures["seconds"] = perf_counter() - started
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    typer.echo(f"the lab lies in {out}; {figures['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
