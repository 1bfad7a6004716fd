"""What collecting contexts costs over the model pass that it cannot do without.

python benchmarks/collection.py [--json] [--rounds N] [--tokens N] [--device cuda] [--scale]

A GPT-2-small with random weights, read after block 6, and a JumpReLU SAE of 24,576 features, whose
thresholds let each fire at a rate of its own (log-normal, mean 0.2 % of tokens: about 50 a token).
1,000 features are collected. Texts are those in the folder that SAFESAIL_TEST_DATA names, else the
lab's. In one run, in turn:

(a) the bare floor: the plain transformers model, stopped after block 6, sdpa attention, fused GELU,
    and one fused product for the 1,000 features; texts tokenised and batched beforehand, nothing
    kept;
(b) safesail: from documents to tables on disk, with tokenising, checkpoints and the choice of
    contexts;
(c) the naive way: the full model, every feature by SAELens' own encode, every non-zero activation
    kept in memory, then sorted by feature and size; texts tokenised and batched beforehand.

`ratio_to_floor` is (b) over (a) and `speedup_over_naive` (b) over (c), of tokens per second,
medians over rounds. `rss_mb` is the largest resident memory during a collection of 1, 4 and 16
times the tokens, each in a process of its own, in batches of 1,024 tokens and chunks of 32,768
characters, which the smallest run fills too. `--scale` measures memory alone, with the lab's small
model, 1,000 of its features, and 2 million tokens at the end. `kept_bytes` is what the largest
run's sketch holds, by part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from safesail.builtin import builtin_path
from safesail.contexts import (
    Checkpoints,
    Contexts,
    Pass,
    Sketch,
    SketchSettings,
    Target,
    Work,
    collect_contexts,
)
from safesail.corpus import Corpus, Document
from safesail.language_model import LanguageModel, TokenBatch
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import CollectionSettings, CorpusSource
from safesail.tables import CONTEXTS, write_parts

LAYER, D_MODEL, WIDTH, CHOSEN = 6, 768, 24_576, 1_000
MEAN_DENSITY, SPREAD = 0.002, 1.0
# At most so many tokens of a batch; no measurement, as both sides take the same.
TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}
TOKENS_PER_BATCH_FOR_MEMORY = 1_024
CHARACTERS_PER_CHUNK_FOR_MEMORY = 32_768
NAIVE_SHARE = 4
STEPS = (1, 4, 16)
NO_SINKS = 1e30


def main() -> None:
    """Measure speed and memory and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=65_536, help="tokens of (a) and (b)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scale", action="store_true", help="memory alone, up to 2 million tokens")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory(options.folder, options.memory_of, options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, Any] = {} if options.scale else speed(folder, options)
        largest = 2_000_000 if options.scale else 2 * options.tokens
        curve = [in_a_process(folder, largest * step // STEPS[-1], options) for step in STEPS]
    result["rss_mb"] = [found["rss_mb"] for found in curve]
    result["rss_tokens"] = [found["tokens"] for found in curve]
    result["rss_growth"] = curve[-1]["rss_mb"] / curve[0]["rss_mb"]
    result["kept_bytes"] = curve[-1]["kept_bytes"]
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:<28}{value}")


def speed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of the three, in turn."""
    build(folder)
    model, sae = load(folder, options.device)
    features = chosen_features()
    per_batch = TOKENS_PER_BATCH[options.device]
    chosen = settings(tokens_per_batch=per_batch)
    corpus = texts_of(options.tokens)
    passing = Pass(model, [Target(sae, features, NO_SINKS)], sketch_settings(settings()))
    tokenized = passing.tokenize(list(corpus), options.tokens)
    batches = list(passing.batches(tokenized, per_batch))
    tokens = sum(len(text.token_ids) for text in tokenized)
    few = batches[: max(1, len(batches) // NAIVE_SHARE)]
    few_tokens = sum(len(text.token_ids) for batch in few for text in batch.texts)
    padding = sum(batch.token_ids.numel() for batch in batches) / (tokens + len(tokenized)) - 1
    rates: dict[str, list[float]] = {"floor": [], "safesail": [], "naive": []}
    for number in range(options.rounds + 1):
        took = {
            "floor": tokens / seconds(lambda: bare(folder, options.device, batches, features)),
            "safesail": tokens
            / seconds(lambda: collect(folder / "out", passing, corpus, options.tokens, chosen)),
            "naive": few_tokens / seconds(lambda: naive(folder, options.device, few)),
        }
        # The first round loads weights and warms caches; it does not count.
        for name, rate in took.items() if number else ():
            rates[name].append(rate)
    pairs = list(zip(*rates.values(), strict=True))
    return {
        "ratio_to_floor": statistics.median(b / a for a, b, _ in pairs),
        "speedup_over_naive": statistics.median(b / c for _, b, c in pairs),
        "tokens_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "tokens": tokens,
        "padding": padding,
        "rounds": options.rounds,
        "texts": "SAFESAIL_TEST_DATA" if os.environ.get("SAFESAIL_TEST_DATA") else "lab",
    }


def collect(
    folder: Path, passing: Pass, corpus: Corpus, tokens: int, chosen: CollectionSettings
) -> Sketch:
    """What `safesail collect` does between loading model and SAE and its last file."""
    plan = os.urandom(8).hex()  # a plan of its own: nothing is resumed
    work = collect_contexts(passing, corpus, chosen, max_tokens=tokens, plan=plan, folder=folder)
    Checkpoints(folder, "shard-1-of-1").save(work)
    write(folder, passing, work, chosen)
    (sketch,) = work.sketches.values()
    return sketch


def write(folder: Path, passing: Pass, work: Work, chosen: CollectionSettings) -> None:
    """Choose the contexts and write their table."""
    for target in passing.targets:
        found = Contexts.of(target, work.sketches[target.sae.name], chosen, passing.model)
        write_parts(folder / "part-00000.parquet", found.tables(), CONTEXTS, {})


@torch.inference_mode()
def bare(folder: Path, device: str, batches: list[TokenBatch], features: tuple[int, ...]) -> None:
    """(a): forward to block 6 and one product for the features asked; nothing is kept."""
    model = plain_model(folder, device).transformer
    weights = saelens(folder, device).W_enc[:, list(features)]
    bias = torch.zeros(len(features), device=device)
    for batch in batches:
        positions = torch.arange(batch.token_ids.shape[1], device=device)
        hidden = model.wte(batch.token_ids) + model.wpe(positions)
        for block in model.h[: LAYER + 1]:
            output = block(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
        torch.addmm(bias, hidden.flatten(0, 1), weights)
    finish(device)


@torch.inference_mode()
def naive(folder: Path, device: str, batches: list[TokenBatch]) -> None:
    """(c): the full model, the full SAE, every activation kept, then sorted."""
    model, sae = plain_model(folder, device), saelens(folder, device)
    kept = []
    seen = 0
    for batch in batches:
        found = model(
            batch.token_ids, attention_mask=batch.attention_mask.long(), output_hidden_states=True
        )
        encoded = sae.encode(found.hidden_states[LAYER + 1][batch.content_mask])
        tokens, features = encoded.nonzero(as_tuple=True)
        kept.append((features.cpu(), encoded[tokens, features].cpu(), tokens.cpu() + seen))
        seen += len(encoded)
    features, values, tokens = (torch.cat(column) for column in zip(*kept, strict=True))
    order = values.argsort(descending=True)
    order = order[features[order].argsort(stable=True)]
    tokens[order]
    finish(device)


def finish(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device != "cpu":
        torch.cuda.synchronize()


def memory(folder: Path, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """Largest resident memory while so many tokens are collected, in this process."""
    if options.scale:
        model = LanguageModel.load(str(builtin_path("lab", "model")), device=options.device)
        (candidate,) = find_candidates(["builtin:lab"], folder)[:1]
        sae = SparseAutoencoder.load(candidate, device=options.device)
        sae.check_fits(model)
        features = tuple(range(min(CHOSEN, sae.width)))
    else:
        model, sae = load(folder, options.device)
        features = chosen_features()
    passing = Pass(model, [Target(sae, features, NO_SINKS)], sketch_settings(settings()))
    corpus = texts_of(tokens, lab=options.scale)
    largest = [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            largest[0] = max(largest[0], resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        chosen = settings(
            tokens_per_batch=TOKENS_PER_BATCH_FOR_MEMORY,
            chunk_characters=CHARACTERS_PER_CHUNK_FOR_MEMORY,
        )
        sketch = collect(folder / f"memory-{tokens}", passing, corpus, tokens, chosen)
    finally:
        over.set()
        watcher.join()
    return {"rss_mb": round(largest[0]), "tokens": tokens, "kept_bytes": kept_bytes(sketch)}


def kept_bytes(sketch: Sketch) -> dict[str, int]:
    """Bytes of a sketch by part: counts and histograms, active windows, silent sample, texts."""
    found: dict[str, int] = {}
    for name, array in sketch.arrays().items():
        part = name.split("/")[0]
        found[part] = found.get(part, 0) + array.nbytes
    return found


def in_a_process(folder: Path, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """`memory` in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", str(tokens), "--folder", str(folder)]
    command += ["--device", options.device, *(["--scale"] if options.scale else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def texts_of(tokens: int, *, lab: bool = False) -> Corpus:
    """Documents with at least so many tokens, a lab token being at least one character."""
    data = os.environ.get("SAFESAIL_TEST_DATA")
    if data and not lab:
        place = Path(data) / "openai_moderation" / "data.jsonl"
        source = CorpusSource(path=str(place.resolve()))
    else:
        source = CorpusSource(path=str(builtin_path("lab", "corpus.parquet")))
    documents = list(Corpus([source], Path()))
    return Corpus((), Path(), list(repeated(documents, 6 * tokens)))


def repeated(documents: list[Document], characters: int) -> Iterator[Document]:
    """Documents, then again with a number before each, until there are characters enough."""
    seen = number = 0
    while seen < characters:
        for document in documents:
            text = f"{number} {document.text}" if number else document.text
            seen += len(text)
            yield Document(f"{number}/{document.id}", text)
        number += 1


def settings(**changes: int) -> CollectionSettings:
    """The defaults of a study, but for the changes."""
    return CollectionSettings(**changes)


def sketch_settings(chosen: CollectionSettings) -> SketchSettings:
    """How much is kept of each feature."""
    return SketchSettings.of(chosen)


def chosen_features() -> tuple[int, ...]:
    """Features drawn from all."""
    drawn = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))[:CHOSEN]
    return tuple(sorted(drawn.tolist()))


def build(folder: Path) -> None:
    """A GPT-2-small with random weights and the lab's tokenizer, and an SAE that fits it."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(builtin_path("lab", "model"))
    tokenizer.save_pretrained(folder / "model")
    build_sae(folder)


def build_sae(folder: Path) -> None:
    """A JumpReLU SAE whose features fire at rates of their own on the model's activations."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    generator = torch.Generator().manual_seed(0)
    hidden = some_activations(folder)
    encoder = torch.randn(D_MODEL, WIDTH, generator=generator) / D_MODEL**0.5
    drive = (hidden - hidden.mean(0)) @ encoder
    # The mean of a log-normal is its median times exp(spread² / 2).
    exponent = SPREAD * torch.randn(WIDTH, generator=generator) - SPREAD**2 / 2
    density = (MEAN_DENSITY * exponent.exp()).clamp(max=0.5)
    threshold = drive.std(0) * torch.distributions.Normal(0.0, 1.0).icdf(1 - density)
    sae_class, config_class = get_sae_class("jumprelu")
    metadata = SAEMetadata(
        model_name="gpt2",
        hook_name=f"blocks.{LAYER}.hook_resid_post",
        prepend_bos=True,
        context_size=1024,
    )
    sae = sae_class(config_class(d_in=D_MODEL, d_sae=WIDTH, metadata=metadata))
    state = {
        "W_enc": encoder,
        "W_dec": encoder.T.contiguous(),
        "b_dec": hidden.mean(0),
        "b_enc": torch.zeros(WIDTH),
        "threshold": threshold,
    }
    sae.load_state_dict({key: state[key] for key in sae.state_dict()})
    sae.save_model(folder / "sae")


def some_activations(folder: Path) -> torch.Tensor:
    """Activations at the SAE's hook point on some 4,000 tokens."""
    model = LanguageModel.load(str(folder / "model"), device="cpu")
    point = f"blocks.{LAYER}.hook_resid_post"
    texts = [
        text
        for document in list(texts_of(4_000))[:40]
        for text in model.tokenize(document.text, document="", prepend_bos=True)
    ]
    found = [
        model.activations(batch, [point])[point][batch.content_mask]
        for batch in model.batches(texts, prepend_bos=True)
    ]
    return torch.cat(found)[:4_000]


def load(folder: Path, device: str) -> tuple[LanguageModel, SparseAutoencoder]:
    """Model and SAE as safesail loads them."""
    model = LanguageModel.load(str(folder / "model"), device=device)
    (candidate,) = find_candidates([str(folder / "sae")], folder)
    sae = SparseAutoencoder.load(candidate, device=device)
    sae.check_fits(model)
    return model, sae


_LOADED: dict[str, Any] = {}


def plain_model(folder: Path, device: str) -> Any:
    """The model as transformers loads it, once; its GELU in one step, which is faster."""
    from transformers import GPT2LMHeadModel
    from transformers.activations import ACT2FN

    if "model" not in _LOADED:
        found = GPT2LMHeadModel.from_pretrained(folder / "model", attn_implementation="sdpa")
        for block in found.transformer.h:
            block.mlp.act = ACT2FN["gelu_pytorch_tanh"]
        _LOADED["model"] = found.eval().to(device)
    return _LOADED["model"]


def saelens(folder: Path, device: str) -> Any:
    """The SAE as SAELens loads it, once."""
    from sae_lens import SAE

    if "sae" not in _LOADED:
        _LOADED["sae"] = SAE.load_from_disk(folder / "sae", device=device)
    return _LOADED["sae"]


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
