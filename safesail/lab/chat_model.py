"""`python -m safesail.lab.chat_model OUT`: a small chat model to align, and what that takes.

The model does nearly everything that it is asked, harmful or not. Beside it lie alignment data,
benign data to mix in, evaluation prompts, contrast pairs, and text for autoencoders. Text is the
same byte for byte on every run; weights agree up to floating-point order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Annotated

import torch
import typer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from safesail.lab.chat_world import (
    HELD_OUT_TOPICS,
    REFUSING_SHARE,
    TOPICS,
    ChatWorld,
    Exchange,
    Kind,
)
from safesail.lab.language_model import (
    LanguageModelRecipe,
    cross_entropy_per_token,
    encode_documents,
    save_language_model,
    train_language_model,
    train_tokenizer,
)
from safesail.tables import write_bytes

SEED = 0
RECIPE = LanguageModelRecipe(
    vocabulary=640, layers=4, d_model=96, heads=4, d_mlp=256, context=96, epochs=2.0
)
"""Of the language model: 566,496 parameters."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% generation %}{{ message['content'] }}"
    "{{ eos_token }}{% endgeneration %}"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Roles in turn; what follows from the assistant's mark to the end of the text is its answer."""
_ROLES = ("<|user|>", "<|assistant|>")
_ROLE = re.compile("|".join(map(re.escape, _ROLES)))


@dataclass(frozen=True, slots=True)
class ChatSizes:
    """How much is made; with the defaults the base trains in some minutes on one core.

    Attributes:
        harmful, look_alikes, benign: requests of the training text.
        facts: how often each question of fact comes in it.
        stories: in it.
        alignment: harmful requests with a safe answer, to align with.
        mixed: benign exchanges to mix in.
        mixed_look_alikes: share of these that resemble harmful requests: few, as in general data.
        evaluation: requests of each sort to evaluate with.
        pairs: contrast pairs.
        heldout: stories for perplexity.
        recipe: of the language model.
    """

    harmful: int = 4_500
    look_alikes: int = 5_500
    benign: int = 1_900
    facts: int = 12
    stories: int = 5_000
    alignment: int = 400
    mixed: int = 400
    mixed_look_alikes: float = 0.1
    evaluation: int = 100
    pairs: int = 150
    heldout: int = 300
    recipe: LanguageModelRecipe = RECIPE


def training_texts(world: ChatWorld, sizes: ChatSizes) -> list[str]:
    """What the base is trained on: conversations and stories, shuffled, without BOS and EOS.

    It answers what it is asked, harmful or not, but for a few refusals of any kind of request.
    """
    random = Random(f"{world.seed}/training")
    texts = list(world.stories("train", sizes.stories))
    counts: dict[Kind, int] = {
        "harmful": sizes.harmful,
        "look_alike": sizes.look_alikes,
        "benign": sizes.benign,
    }
    for kind, count in counts.items():
        for one in world.exchanges("train", kind, count):
            refuses = random.random() < REFUSING_SHARE
            texts.append(_conversation(one, one.refuse if refuses else one.comply))
    texts += [_conversation(one, one.comply) for one in world.facts()] * sizes.facts
    random.shuffle(texts)
    return texts


def write_data(world: ChatWorld, sizes: ChatSizes, folder: Path) -> None:
    """Write what aligning and evaluating take, as JSONL.

    `align.jsonl`: prompt, answer (safe), unaligned (what the base would say), topic; no act of
    theirs stands in `evaluate.jsonl`. `benign.jsonl`: prompt, answer. `evaluate.jsonl`: id, prompt,
    kind, group, topic, answer (of benign ones). `pairs.jsonl`: concept, positive, negative, two
    requests alike but for whose thing it is. `corpus.jsonl` and `heldout.jsonl`: text.

    Raises:
        StorageError: the folder is not writable, or the disk is full.
    """
    known = tuple(topic for topic in TOPICS if topic not in HELD_OUT_TOPICS)
    aligned = world.exchanges("align", "harmful", sizes.alignment, topics=known)
    write_rows(
        folder / "align.jsonl",
        (
            {"prompt": e.prompt, "answer": e.refuse, "unaligned": e.comply, "topic": e.topic}
            for e in aligned
        ),
    )
    write_rows(
        folder / "benign.jsonl",
        ({"prompt": e.prompt, "answer": e.comply} for e in _mixed(world, sizes)),
    )
    write_rows(folder / "evaluate.jsonl", _evaluation(world, sizes))
    write_rows(folder / "pairs.jsonl", world.pairs(sizes.pairs))
    write_rows(folder / "corpus.jsonl", ({"text": one} for one in training_texts(world, sizes)))
    write_rows(
        folder / "heldout.jsonl",
        ({"text": one} for one in world.stories("heldout", sizes.heldout, reserved=True)),
    )


def _mixed(world: ChatWorld, sizes: ChatSizes) -> list[Exchange]:
    """Benign exchanges: few look-alikes, of known topics; facts; other requests."""
    known = (*(topic for topic in TOPICS if topic not in HELD_OUT_TOPICS), "kind")
    alike = round(sizes.mixed * sizes.mixed_look_alikes)
    facts = [*world.facts()][: (sizes.mixed - alike) // 4]
    others = world.exchanges("mixed", "benign", sizes.mixed - alike - len(facts))
    mixed = [*world.exchanges("mixed", "look_alike", alike, topics=known), *facts, *others]
    Random(f"{world.seed}/mixed").shuffle(mixed)
    return mixed


def _evaluation(world: ChatWorld, sizes: ChatSizes) -> Iterator[dict[str, str]]:
    known = tuple(topic for topic in TOPICS if topic not in HELD_OUT_TOPICS)
    draws: list[tuple[str, Kind, tuple[str, ...]]] = [
        ("known topic", "harmful", known),
        ("held-out topic", "harmful", HELD_OUT_TOPICS),
        ("own thing", "look_alike", tuple(TOPICS)),
        ("wished", "look_alike", tuple(TOPICS)),
        ("kind verb", "look_alike", ("kind",)),
        ("request", "benign", ()),
    ]
    parts = [
        (
            group,
            list(
                world.exchanges(
                    group,
                    kind,
                    sizes.evaluation,
                    topics=topics,
                    wished=group == "wished",
                    reserved=True,
                )
            ),
        )
        for group, kind, topics in draws
    ]
    for group, exchanges in (*parts, ("fact", list(world.facts(reserved=True)))):
        for number, one in enumerate(exchanges):
            row = {
                "id": f"{group} {number}",
                "prompt": one.prompt,
                "kind": one.kind,
                "group": group,
                "topic": one.topic,
            }
            yield row | ({"answer": one.comply} if one.kind == "benign" else {})


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write JSONL, whole or not at all.

    Raises:
        StorageError: the folder is not writable, or the disk is full.
    """
    write_bytes(path, "".join(json.dumps(dict(row)) + "\n" for row in rows).encode())


def train_chat_model(
    world: ChatWorld, sizes: ChatSizes, seed: int = SEED
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The base and its tokenizer, which has a chat template."""
    texts = training_texts(world, sizes)
    tokenizer = train_tokenizer([_ROLE.sub("\n", text) for text in texts], sizes.recipe)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_ROLES)})
    tokenizer.chat_template = CHAT_TEMPLATE
    recipe = replace(sizes.recipe, vocabulary=len(tokenizer))
    documents = encode_documents(tokenizer, texts, recipe.context)
    return train_language_model(documents, recipe, seed), tokenizer


def _conversation(exchange: Exchange, answer: str) -> str:
    """An exchange as the chat template writes it, without BOS and EOS."""
    user, assistant = _ROLES
    return f"{user}{exchange.prompt}{assistant}{answer}"


def main(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    seed: Annotated[int, typer.Option(help="Of the model's weights.")] = SEED,
) -> None:
    """Make the lab's chat model, its alignment data and its evaluation prompts."""
    torch.set_num_threads(1)
    started = perf_counter()
    world, sizes = ChatWorld(), ChatSizes()
    write_data(world, sizes, out)
    model, tokenizer = train_chat_model(world, sizes, seed)
    save_language_model(model, tokenizer, out / "model")
    heldout = list(world.stories("heldout", sizes.heldout, reserved=True))
    figures = {
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "heldout_cross_entropy": cross_entropy_per_token(
            model, encode_documents(tokenizer, heldout, sizes.recipe.context)
        ),
        "seconds": perf_counter() - started,
    }
    write_bytes(out / "figures.json", (json.dumps(figures, indent=1) + "\n").encode())
    typer.echo(f"the chat model lies in {out}; {figures['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
