"""Does it pay to begin LoRA in the span of safety features? The lab's chat model, every control.

    python benchmarks/sails_toy.py --chat FOLDER [--json] [--quick] [--seeds 5]

FOLDER is what `python -m safesail.lab.chat_model FOLDER` made. SAEs of all blocks are trained
there once. Every method trains from the same base, on the same examples in the same order, with the
same rank, steps and learning rate; seeds change the order, the random factors and the benign
examples drawn. Refusals are told by the refusal rules, which are exact on this grammar.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from safesail.alignment import (
    Evaluation,
    EvaluationPrompt,
    Example,
    LayerSubspace,
    Likelihood,
    ModelAnswers,
    Reply,
    Subspace,
    System,
    TrainingOptions,
    adapter_parameters,
    contrast_features,
    covariance_difference,
    evaluate,
    evaluation_page,
    figure_rows,
    fill_subspace,
    fit,
    layer_from_features,
    make_adapter,
    make_plain_adapter,
    mean_difference,
    mix,
    random_basis,
    random_features,
    raw_difference_pca,
    read_examples,
    read_prompts,
    read_refusal,
    shuffled_labels,
)
from safesail.lab.activations import TokenTable, content_mask, read_hook_points, tokenize
from safesail.lab.autoencoders import load_autoencoder
from safesail.lab.language_model import load_language_model
from safesail.sparse_autoencoder import Activations, Recipe, train_sae, usual_learning_rate
from safesail.study import CorpusSource

WIDTH, ACTIVE, SAE_DOCUMENTS, SAE_BATCH = 768, 16, 6_000, 512
BENIGN_SHARE = 0.5
WATCHED = 40
"""Harmful prompts, and as many look-alikes, that are asked while a method trains."""
WATCH_EVERY = 10
"""Steps between."""
LEVELS = (0.5, 0.75, 0.8, 0.9)
"""Shares of the watched harmful prompts refused, and balanced scores over all watched ones; the
first watched step at each is kept."""
AGAINST = ("lora", "sails")

Sides = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Material:
    """What subspaces are made of, by state of the stream.

    Attributes:
        decoders: [features, d_model] of each SAE.
        hidden: aligned and unaligned texts [texts, d_model], over `response` and `prompt`.
        features: the same of the SAE's activations, [texts, features].
    """

    decoders: dict[int, NDArray[np.float32]]
    hidden: dict[str, dict[int, Sides]]
    features: dict[str, dict[int, Sides]]


def point_of(stream: int) -> str:
    """The hook point that a state of the stream is written at."""
    return f"blocks.{stream - 1}.hook_resid_post"


def train_saes(chat: Path, streams: Sequence[int], steps: int) -> dict[int, Any]:
    """TopK SAEs of the general text, one a block, trained where they are missing."""
    folders = {stream: chat / "saes" / f"{point_of(stream)}-{steps}" for stream in streams}
    missing = [stream for stream in streams if not (folders[stream] / "cfg.json").exists()]
    if missing:
        model, tokenizer = load_language_model(chat / "model")
        lines = (chat / "corpus.jsonl").read_text().splitlines()[:SAE_DOCUMENTS]
        table = tokenize(tokenizer, [json.loads(line)["text"] for line in lines])
        hidden = read_hook_points(model, table, [point_of(stream) for stream in missing])
        for stream in missing:
            rows = hidden[point_of(stream)]
            rows = rows[content_mask(rows)]
            kept, heldout = rows[: -len(rows) // 20], rows[-len(rows) // 20 :]
            recipe = Recipe(
                point_of(stream),
                "topk",
                ACTIVE,
                WIDTH,
                steps,
                SAE_BATCH,
                usual_learning_rate(WIDTH),
            )
            about = {"model_name": "chat", "prepend_bos": True, "context_size": 96}
            found = train_sae(recipe, Activations([kept]), heldout, folders[stream], about=about)
            sys.stderr.write(f"SAE of {point_of(stream)}: FVU {found.fvu:.3f}\n")
    return {stream: load_autoencoder(folder) for stream, folder in folders.items()}


@torch.inference_mode()
def read_material(chat: Path, model: Any, tokenizer: Any, saes: dict[int, Any]) -> Material:
    """Contrast over answers (safe and not) and over prompts (harmless and harmful twins)."""
    rows = [json.loads(line) for line in (chat / "align.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (chat / "pairs.jsonl").read_text().splitlines()]
    sides = {
        "response": [[(row["prompt"], row[of]) for row in rows] for of in ("answer", "unaligned")],
        "prompt": [[(row[of], "") for row in pairs] for of in ("negative", "positive")],
    }
    hidden: dict[str, dict[int, Any]] = {name: {} for name in sides}
    features: dict[str, dict[int, Any]] = {name: {} for name in sides}
    for name, both in sides.items():
        read = [states_of(model, tokenizer, side, sorted(saes)) for side in both]
        for stream, sae in saes.items():
            states = [one[stream] for one in read]
            hidden[name][stream] = tuple(
                np.stack([text.mean(0).numpy() for text in side]) for side in states
            )
            features[name][stream] = tuple(
                np.stack([sae.encode(text).mean(0).numpy() for text in side]) for side in states
            )
    decoders = {stream: sae.W_dec.detach().numpy() for stream, sae in saes.items()}
    return Material(decoders, hidden, features)


def states_of(
    model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]], streams: Sequence[int]
) -> dict[int, list[torch.Tensor]]:
    """[tokens, d_model] of each text by state: at the answer, or where it is empty at the prompt.

    Args:
        model: the chat model.
        tokenizer: its tokenizer.
        texts: prompt and answer each.
        streams: states of the stream, from 1.
    """
    rows, places = [], []
    for prompt, answer in texts:
        message = [{"role": "user", "content": prompt}]
        start = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(start, add_special_tokens=False)["input_ids"]
        told = tokenizer(answer, add_special_tokens=False)["input_ids"]
        rows.append(ids + told)
        # Places without BOS; the user's mark comes before the prompt, the assistant's after it.
        places.append(slice(len(ids) - 1, None) if told else slice(1, len(ids) - 2))
    nothing = np.zeros(0, np.int64)
    points = [point_of(stream) for stream in streams]
    read = read_hook_points(model, TokenTable(rows, nothing, nothing), points)
    sizes = [len(row) - 1 for row in rows]
    return {
        stream: [
            text[place]
            for text, place in zip(read[point_of(stream)].split(sizes), places, strict=True)
        ]
        for stream in streams
    }


def subspace_of(method: str, material: Material, rank: int, seed: int) -> Subspace:
    """Bases of all covered states by one method."""
    over = "prompt" if method.endswith("prompt") else "response"
    layers = []
    for stream, decoder in material.decoders.items():
        aligned, unaligned = material.hidden[over][stream]
        codes = material.features[over][stream]
        own = 1_000 * seed + stream
        if method in ("sails", "sails_prompt", "shuffled_labels"):
            if method == "shuffled_labels":
                codes = shuffled_labels(*codes, paired=True, seed=own)
            layer, _ = layer_from_features(
                decoder,
                contrast_features(*codes, paired=True),
                rank,
                stream=stream,
                hook_point=point_of(stream),
                sae="topk",
            )
            layers.append(layer)
            continue
        if method == "random_features":
            found, _ = random_features(decoder, rank, count=4 * rank, seed=own)
        elif method == "random_basis":
            found = random_basis(decoder.shape[1], rank, seed=own)
        elif method.startswith("raw_pca"):
            found = raw_difference_pca(aligned, unaligned, rank, paired=True)
        elif method == "cov_diff":
            found = covariance_difference(aligned, unaligned, rank)
        elif method == "mean_diff":
            found = mean_difference(aligned, unaligned)
        else:
            raise ValueError(f"unknown method {method!r}")
        empty = np.zeros(0, np.float32)
        layers.append(LayerSubspace(stream, point_of(stream), "", found.basis, (), empty))
    made = Subspace("chat", tuple(layers), "abs", "weighted", method)
    return fill_subspace(made, rank, seed=seed)


METHODS = (
    "lora",
    "lora_peft",
    "sails",
    "sails_prompt",
    "raw_pca",
    "raw_pca_prompt",
    "cov_diff",
    "mean_diff",
    "random_basis",
    "random_features",
    "shuffled_labels",
    "full",
)


def prepared(method: str, model: Any, material: Material, rank: int, seed: int) -> Any:
    """A fresh base with what the method trains."""
    if method == "full":
        return model
    if method.startswith("lora"):
        return make_plain_adapter(model, rank=rank, match_norm=method == "lora", seed=seed)
    found = subspace_of(method, material, rank, seed)
    return make_adapter(model, found, rank=rank, uncovered="nearest", seed=seed)


class Recorded:
    """A trained system's answers, kept so that its weights need not be."""

    def __init__(self, replies: Sequence[Reply], likelihoods: Sequence[Likelihood]) -> None:
        self._replies, self._likelihoods = replies, likelihoods

    def answer(self, prompts: Sequence[str]) -> Sequence[Reply]:
        """As they were."""
        return self._replies

    def likelihood(self, texts: Sequence[str]) -> Sequence[Likelihood]:
        """As they were."""
        return self._likelihoods


@dataclass(frozen=True)
class Task:
    """What every method is given."""

    chat: Path
    aligned: list[Example]
    benign: list[Example]
    prompts: list[EvaluationPrompt]
    texts: list[str]
    steps: int
    rank: int
    rate: float
    full_rate: float


class Curve(NamedTuple):
    """What was watched while a method trained, every so many steps.

    Attributes:
        refused: share of the harmful prompts refused.
        balanced: mean of that and of the share of look-alikes answered.
    """

    refused: list[float]
    balanced: list[float]


def run_one(
    method: str, seed: int, task: Task, material: Material, tokenizer: Any
) -> tuple[Recorded, Curve, int]:
    """Train once: its answers, its watched curve, and how many parameters were trained."""
    model = AutoModelForCausalLM.from_pretrained(task.chat / "model", dtype=torch.float32).eval()
    trained = prepared(method, model, material, task.rank, seed)
    size = sum(one.numel() for one in trained.parameters() if one.requires_grad)
    watched = [
        [one.prompt for one in task.prompts if one.kind == kind][::2][:WATCHED]
        for kind in ("harmful", "look_alike")
    ]
    short = ModelAnswers(trained, tokenizer, batch_size=2 * WATCHED, max_new_tokens=20)
    curve = Curve([], [])

    def watch(point: Any, steps: int) -> None:
        if point.step % WATCH_EVERY == 0:
            harm, alike = watched
            refuses = [read_refusal(one.text) == "refused" for one in short.answer(harm + alike)]
            refused, over = np.mean(refuses[: len(harm)]), np.mean(refuses[len(harm) :])
            curve.refused.append(float(refused))
            curve.balanced.append(float(refused + 1 - over) / 2)

    options = TrainingOptions(
        steps=task.steps,
        batch_size=16,
        learning_rate=task.full_rate if method == "full" else task.rate,
        seed=seed,
        checkpoint_every=10 * task.steps,
    )
    examples = mix(task.aligned, task.benign, BENIGN_SHARE, seed=seed)
    with tempfile.TemporaryDirectory() as work:
        fit(trained, tokenizer, examples, Path(work) / "work", options=options, watch=watch)
    answers = ModelAnswers(trained, tokenizer, batch_size=128, max_new_tokens=30)
    replies = answers.answer([one.prompt for one in task.prompts])
    return (
        Recorded(replies, answers.likelihood(task.texts)),
        curve,
        size,
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every method and seed; figures, differences, and steps to 90 %."""
    started = perf_counter()
    chat: Path = arguments.chat
    model, tokenizer = load_language_model(chat / "model")
    tokenizer = AutoTokenizer.from_pretrained(chat / "model")
    streams = range(1, model.config.num_hidden_layers + 1)
    saes = train_saes(chat, streams, 200 if arguments.quick else 1_000)
    material = read_material(chat, model, tokenizer, saes)
    task = task_of(arguments)
    expected = adapter_parameters(model.config, rank=task.rank)
    systems = [System("base", ModelAnswers(model, tokenizer, batch_size=128, max_new_tokens=30))]
    curves: dict[str, list[Curve]] = {method: [] for method in arguments.methods}
    sizes: dict[str, int] = {}
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            recorded, curve, sizes[method] = run_one(method, seed, task, material, tokenizer)
            assert method == "full" or sizes[method] == expected, (method, sizes[method], expected)
            curves[method].append(curve)
            systems.append(System(method, recorded, seed))
            sys.stderr.write(f"{perf_counter() - started:6.0f} s  seed {seed}  {method}\n")
    evaluation = evaluate(task.prompts, systems, texts=task.texts)
    return result_of(evaluation, curves, sizes, task, arguments, perf_counter() - started)


def task_of(arguments: argparse.Namespace) -> Task:
    """Data of the chat folder; in the quick form a tenth of it."""
    chat: Path = arguments.chat
    prompts = read_prompts(chat / "evaluate.jsonl")
    lines = (chat / "heldout.jsonl").read_text().splitlines()
    if arguments.quick:
        prompts, lines = prompts[::10], lines[::10]
    return Task(
        chat,
        read_examples(CorpusSource(path="align.jsonl"), chat),
        read_examples(CorpusSource(path="benign.jsonl"), chat),
        prompts,
        [json.loads(line)["text"] for line in lines],
        arguments.steps,
        arguments.rank,
        arguments.rate,
        arguments.full_rate,
    )


def result_of(
    evaluation: Evaluation,
    curves: dict[str, list[Curve]],
    sizes: dict[str, int],
    task: Task,
    arguments: argparse.Namespace,
    seconds: float,
) -> dict[str, Any]:
    """What is printed."""
    others = [name for name in AGAINST if name in evaluation.answers] or ["base"]
    return {
        "settings": {
            "steps": task.steps,
            "rank": task.rank,
            "learning_rate": task.rate,
            "full_learning_rate": task.full_rate,
            "seeds": arguments.seeds,
            "benign_share": BENIGN_SHARE,
        },
        "parameters": sizes,
        "figures": figure_rows(evaluation.figures()),
        "differences": {name: figure_rows(evaluation.differences(name)) for name in others},
        "curves": {method: [one._asdict() for one in each] for method, each in curves.items()},
        "steps_to_refused": {
            method: {str(level): steps_to(level, [one.refused for one in each]) for level in LEVELS}
            for method, each in curves.items()
        },
        "steps_to_balanced": {
            method: {
                str(level): steps_to(level, [one.balanced for one in each]) for level in LEVELS
            }
            for method, each in curves.items()
        },
        "seconds": seconds,
        "page": evaluation_page(evaluation, against=others[0]),
    }


def steps_to(level: float, curves: Sequence[Sequence[float]]) -> dict[str, Any]:
    """First watched step at a level in each seed, and their median; None where it was not reached.

    The median counts seeds that did not get there as later than all others.
    """
    each = [
        next((WATCH_EVERY * n for n, one in enumerate(curve, start=1) if one >= level), None)
        for curve in curves
    ]
    middle = median(math.inf if one is None else one for one in each)
    return {"each": each, "median": middle if math.isfinite(middle) else None}


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chat", type=Path, required=True, help="what the lab's command made")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a tenth of the prompts, poor SAEs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--full-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    found = run(arguments)
    if arguments.json:
        page = found.pop("page")
        sys.stderr.write(page)
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    sys.stdout.write(found["page"])
    for name in ("refused", "balanced"):
        for method, levels in found[f"steps_to_{name}"].items():
            told = ", ".join(f"{level}: {one['median']}" for level, one in levels.items())
            sys.stdout.write(f"{method}: median step at {name} {told}\n")


if __name__ == "__main__":
    main()
