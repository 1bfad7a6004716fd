"""Training of the lab's language model: a byte-level BPE tokenizer and a small Llama."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>")
BOS, EOS, PAD = range(3)


@dataclass(frozen=True, slots=True)
class LanguageModelRecipe:
    """Shape of the language model and how long it is trained; about 1.4 M parameters."""

    vocabulary: int = 2000
    layers: int = 4
    d_model: int = 128
    heads: int = 4
    d_mlp: int = 384
    context: int = 128
    batch_documents: int = 32
    epochs: float = 2.0
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_share: float = 0.03


def train_tokenizer(texts: Sequence[str], recipe: LanguageModelRecipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE; ids 0, 1, 2 are BOS, EOS, padding; encoding adds no special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos, eos, pad = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        model_max_length=recipe.context,
    )


def encode_documents(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int
) -> list[list[int]]:
    """Token ids of each text between BOS and EOS, cut at `context`."""
    encoded = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=context)[
        "input_ids"
    ]
    return [[BOS, *ids, EOS][:context] for ids in encoded]


def padded_batches(
    documents: Sequence[Sequence[int]], size: int, order: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Right-padded id tensors of `size` documents, taken in `order`."""
    for first in range(0, len(order), size):
        rows = [documents[index] for index in order[first : first + size]]
        batch = torch.full((len(rows), max(map(len, rows))), PAD)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        yield batch


def shuffled_by_length(
    documents: Sequence[Sequence[int]], size: int, generator: np.random.Generator
) -> list[int]:
    """An order whose batches hold documents of like length, the batches shuffled."""
    lengths = np.array([len(ids) for ids in documents]) + generator.uniform(0, 4, len(documents))
    order = np.argsort(lengths, kind="stable")
    blocks = [order[first : first + size] for first in range(0, len(order), size)]
    return [int(index) for block in generator.permutation(len(blocks)) for index in blocks[block]]


def _loss(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=batch[:, :-1]).logits
    return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=PAD)


def train_language_model(
    documents: Sequence[Sequence[int]], recipe: LanguageModelRecipe, seed: int
) -> LlamaForCausalLM:
    """Trains on documents of token ids with AdamW and a cosine schedule; returns it in eval mode.

    Padding is on the right, so causal attention alone keeps it from every real position.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.d_model,
            intermediate_size=recipe.d_mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            rms_norm_eps=1e-5,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
        weight_decay=recipe.weight_decay,
    )
    generator = np.random.default_rng(seed)
    steps = int(recipe.epochs * math.ceil(len(documents) / recipe.batch_documents))
    started, step, losses = perf_counter(), 0, []
    while step < steps:
        order = shuffled_by_length(documents, recipe.batch_documents, generator)
        for batch in padded_batches(documents, recipe.batch_documents, order):
            warm = min(1.0, (step + 1) / (recipe.warmup_share * steps))
            rate = warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate
            loss = _loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step % 50 == 0 or step == steps:
                typer.echo(
                    f"language model: step {step}/{steps}, loss {np.mean(losses[-50:]):.3f}, "
                    f"{perf_counter() - started:.0f} s"
                )
            if step == steps:
                break
    return model.eval()


@torch.inference_mode()
def cross_entropy_per_token(
    model: LlamaForCausalLM, documents: Sequence[Sequence[int]], size: int = 64
) -> float:
    """Mean cross-entropy in nats of the tokens after BOS."""
    total = tokens = 0.0
    for batch in padded_batches(documents, size, range(len(documents))):
        count = int((batch[:, 1:] != PAD).sum())
        total += float(_loss(model, batch)) * count
        tokens += count
    return total / tokens


def ngram_cross_entropy(
    train: Sequence[Sequence[int]], heldout: Sequence[Sequence[int]], vocabulary: int
) -> tuple[float, float]:
    """Unigram and bigram cross-entropy in nats of held-out tokens after BOS.

    Counts come from `train`; the unigram is smoothed by adding 0.5, the bigram by weighing five
    draws from the unigram with its counts (Dirichlet smoothing).
    """
    unigram = np.full(vocabulary, 0.5)
    bigram: Counter[tuple[int, int]] = Counter()
    before: Counter[int] = Counter()
    for ids in train:
        np.add.at(unigram, ids[1:], 1)
        bigram.update(pairwise(ids))
        before.update(ids[:-1])
    unigram /= unigram.sum()
    pairs = [pair for ids in heldout for pair in pairwise(ids)]
    single = np.array([unigram[second] for _, second in pairs])
    seen = np.array([bigram[pair] for pair in pairs], dtype=float)
    context = np.array([before[first] for first, _ in pairs], dtype=float)
    double = (seen + 5 * single) / (context + 5)
    return float(-np.log(single).mean()), float(-np.log(double).mean())


def save_language_model(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Writes an ordinary Hugging Face folder (safetensors, tokenizer.json)."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_language_model(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The saved model, float32 in eval mode, and its tokenizer; needs no network."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)
