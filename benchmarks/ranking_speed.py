"""How much longer ranking 12 SAEs takes than the model and the SAEs alone need.

python benchmarks/ranking_speed.py [--json] [--rounds N] [--tokens N] [--width N]

The model is a GPT-2-small with random weights (12 layers, 768 numbers per token). At each of three
layers lie four SAEs (two TopK, one JumpReLU, one standard) whose dictionaries are made of the
layer's own activations and which have 30 to 100 active features per token. Text and tokenizer are
the lab's, the pairs those of four starter concepts.

Ranking is `score_candidates` and `compare`, with everything that they do: tokenising, attention
sinks, statistics, checks of the wiring, scores, intervals. The floor is what no ranking can leave
out, in plain PyTorch: one forward pass per batch that ends at the last hook point, all features of
every SAE, and each token rebuilt from its active features alone, which is the cheapest way. Both
take the same batches through the same model. Reading the SAEs' files is on neither side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safesail.builtin import builtin_path
from safesail.concepts import ConceptSet, load_concepts
from safesail.corpus import Corpus
from safesail.language_model import LanguageModel, TokenBatch
from safesail.ranking import compare, score_candidates
from safesail.reading import Reading
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder, find_candidates
from safesail.study import CorpusSource, RankingSettings

LAYERS = (3, 6, 9)
CONCEPTS = 4
PAIRS_PER_CONCEPT = 25
ACTIVE = {"topk-32": 32, "topk-64": 64, "jumprelu": 50, "standard": 80}


def main() -> None:
    """Time both in turn and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=8_000, help="tokens of the corpus sample")
    parser.add_argument("--width", type=int, default=24_576, help="features of each SAE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.rounds, options.tokens, options.width)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"floor    {result['floor_seconds']:.1f} s")
    print(f"ranking  {result['ranking_seconds']:.1f} s")
    print(f"ratio    {result['ratio']:.3f} (target: at most 1.25)")
    print(f"of processor time, which other work disturbs less: {result['cpu_ratio']:.3f}")


def measure(folder: Path, rounds: int, sample_tokens: int, width: int) -> dict[str, Any]:
    """Medians over the rounds, after a warm-up of both sides."""
    model = random_model(folder / "model")
    concepts = few_concepts()
    corpus = Corpus([CorpusSource(path=str(builtin_path("lab", "corpus.parquet")))], folder)
    for layer in LAYERS:
        write_saes(folder / "saes", model, corpus, layer, width)
    candidates = find_candidates(["saes/*"], folder)
    saes = {c.name: SparseAutoencoder.load(c, device=model.device) for c in candidates}
    hold_loaded(saes)
    settings = RankingSettings(sample_tokens=sample_tokens)
    batches = shared_batches(model, corpus, concepts, sample_tokens, next(iter(saes.values())))

    def rank() -> list[dict[str, Any]]:
        scored = score_candidates(model, candidates, concepts, corpus, settings)
        rows = [row for candidate in scored for row in candidate.rows]
        compare(rows)
        return rows

    def floor() -> None:
        bare(model, list(saes.values()), batches)

    bare(model, list(saes.values()), batches[-1:])
    floors: list[tuple[float, float]] = []
    rankings: list[tuple[float, float]] = []
    rows: list[dict[str, Any]] = []
    for _ in range(rounds):
        floors.append(seconds(floor))
        rankings.append(seconds(lambda: rows.extend(rank())))
    refused = {row["sae"]: row["health"] for row in rows if row["health"] != "ok"}
    if refused:
        raise SystemExit(f"SAEs of this benchmark were refused, so it measures nothing: {refused}")
    floor_wall, floor_cpu = (statistics.median(times) for times in zip(*floors, strict=True))
    rank_wall, rank_cpu = (statistics.median(times) for times in zip(*rankings, strict=True))
    return {
        "ratio": rank_wall / floor_wall,
        "cpu_ratio": rank_cpu / floor_cpu,
        "floor_seconds": floor_wall,
        "ranking_seconds": rank_wall,
        "rounds": rounds,
        "candidates": len(candidates),
        "width": width,
        "pairs": len(concepts.pairs),
        "tokens": sum(int(batch.content_mask.sum()) for batch in batches),
        "l0": {row["sae"]: row["l0"] for row in rows},
        "fvu": {row["sae"]: row["fvu"] for row in rows},
        "threads": torch.get_num_threads(),
    }


def random_model(folder: Path) -> LanguageModel:
    """GPT-2-small as its configuration describes it, with random weights."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(builtin_path("lab", "model")).save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


def few_concepts() -> ConceptSet:
    """As many pairs of each of the first starter concepts, their children's as their own."""
    starter = load_concepts(["builtin:starter"], Path())
    chosen = []
    for concept in starter.top_level[:CONCEPTS]:
        numbers = starter.pair_numbers(concept)[:PAIRS_PER_CONCEPT]
        chosen += [replace(starter.pairs[number], concept=concept) for number in numbers]
    return ConceptSet(chosen)


@torch.inference_mode()
def write_saes(folder: Path, model: LanguageModel, corpus: Corpus, layer: int, width: int) -> None:
    """Four SAEs of one layer: features are noisy differences of activations from their mean."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    hook_point = f"blocks.{layer}.hook_resid_post"
    generator = torch.Generator().manual_seed(layer)
    hidden = some_activations(model, corpus, hook_point)
    hidden = hidden[torch.randperm(len(hidden), generator=generator)]
    mean = hidden.mean(0)
    # The first 1,000 tokens, which set thresholds and scale, are in no dictionary.
    drawn = torch.randint(1_000, len(hidden), (width,), generator=generator)
    spread = hidden.std(0)
    noise = torch.randn(width, len(mean), generator=generator) * spread / 2
    dictionary = torch.nn.functional.normalize(hidden[drawn] - mean + noise, dim=1)
    drive = (hidden[:1_000] - mean) @ dictionary.T
    for name, active in ACTIVE.items():
        architecture = name.split("-")[0]
        sae_class, config_class = get_sae_class(architecture)
        metadata = SAEMetadata(
            model_name="gpt2", hook_name=hook_point, prepend_bos=True, context_size=128
        )
        more = {"k": active} if architecture == "topk" else {}
        sae = sae_class(config_class(d_in=len(mean), d_sae=width, metadata=metadata, **more))
        cut = drive.flatten().kthvalue(drive.numel() - len(drive) * active).values
        if architecture == "topk":
            values, places = drive.topk(active, dim=1)
            codes = torch.zeros_like(drive).scatter_(1, places, values.relu())
        else:
            codes = (drive - cut * (architecture == "standard")).relu() * (drive > cut)
        rebuilt = codes @ dictionary
        # Half of what these tokens fit best, so that it betters the mean on others too.
        scale = (rebuilt * (hidden[:1_000] - mean)).sum() / rebuilt.square().sum() / 2
        state = {
            "W_enc": dictionary.T.contiguous(),
            "W_dec": dictionary * scale,
            "b_dec": mean,
            "b_enc": -cut.expand(width) * (architecture == "standard"),
            "threshold": cut.expand(width),
        }
        sae.load_state_dict({key: state[key] for key in sae.state_dict()})
        sae.save_model(folder / f"layer{layer}-{name}")


def some_activations(model: LanguageModel, corpus: Corpus, hook_point: str) -> Tensor:
    """Content tokens of the corpus' later documents, some 4,000."""
    texts, tokens = [], 0
    for number, document in enumerate(corpus):
        if number >= 2_000:
            texts += model.tokenize(document.text, document=document.id, prepend_bos=True)
            tokens += len(texts[-1].token_ids)
        if tokens >= 4_000:
            break
    return torch.cat(
        [
            model.activations(batch, [hook_point])[hook_point][batch.content_mask]
            for batch in model.batches(texts, prepend_bos=True)
        ]
    )


def hold_loaded(saes: dict[str, SparseAutoencoder]) -> None:
    """Let the ranking take the SAEs that are already in memory."""

    def load(candidate: Candidate, *, device: str) -> SparseAutoencoder:
        return saes[candidate.name]

    SparseAutoencoder.load = load  # type: ignore[method-assign, assignment]


def shared_batches(
    model: LanguageModel,
    corpus: Corpus,
    concepts: ConceptSet,
    sample_tokens: int,
    sae: SparseAutoencoder,
) -> list[TokenBatch]:
    """The batches that the ranking makes: the corpus sample's, then the pairs'."""
    reading = Reading.of(model, prepend_bos=sae.prepend_bos, context_size=sae.context_size)
    sample = list(reading.texts(model, corpus, sample_tokens))
    distinct = dict.fromkeys(t for pair in concepts.pairs for t in (pair.positive, pair.negative))
    texts = [model.tokenize(text, document="", prepend_bos=True)[0] for text in distinct]
    return [
        *model.batches(sample, prepend_bos=True),
        *model.batches(texts, prepend_bos=True),
    ]


@torch.inference_mode()
def bare(model: LanguageModel, saes: list[SparseAutoencoder], batches: list[TokenBatch]) -> None:
    """Forward, encode, rebuild; nothing is kept."""
    points = sorted({sae.hook_point for sae in saes})
    for batch in batches:
        found = model.activations(batch, points)
        for sae in saes:
            rebuild(sae._sae, found[sae.hook_point][batch.content_mask])


def rebuild(sae: Any, inputs: Tensor) -> Tensor:
    """All features of some tokens, and the tokens rebuilt from the active ones."""
    codes = torch.addmm(sae.b_enc, inputs - sae.b_dec, sae.W_enc)
    if hasattr(sae.cfg, "k"):
        strongest = codes.topk(sae.cfg.k, dim=1)
        values, features = strongest.values.relu_().flatten(), strongest.indices.flatten()
        codes = codes.zero_().scatter_(1, strongest.indices, strongest.values)
        starts = torch.arange(0, len(features), sae.cfg.k)
    else:
        threshold = getattr(sae, "threshold", None)
        codes = codes.relu_() if threshold is None else codes.mul_(codes > threshold)
        tokens, features = codes.nonzero(as_tuple=True)
        values = codes[tokens, features]
        starts = torch.searchsorted(tokens, torch.arange(len(inputs)))
    return sae.b_dec + torch.nn.functional.embedding_bag(
        features, sae.W_dec, starts, mode="sum", per_sample_weights=values
    )


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall time of a call, and the processors' time of all its threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
