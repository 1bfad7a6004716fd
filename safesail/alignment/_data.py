"""Prompts with the answers that a model is to learn, as text and as tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2.exceptions import TemplateError

from safesail.corpus import read_rows
from safesail.errors import AlignmentError, InputError

if TYPE_CHECKING:
    import torch

    from safesail.study import CorpusSource

IGNORED = -100
"""Label of tokens on which transformers takes no loss."""

_STAND_IN = "safesail"


class Example(NamedTuple):
    """A prompt and the answer to learn.

    Attributes:
        prompt: what a user says.
        answer: what the model is to answer.
    """

    prompt: str
    answer: str


class EncodedExample(NamedTuple):
    """An example as tokens.

    Attributes:
        token_ids: of the prompt and the answer.
        answer_from: place of the answer's first token.
    """

    token_ids: list[int]
    answer_from: int


class Encoded(NamedTuple):
    """Examples as tokens.

    Attributes:
        examples: in their order.
        cut: how many of them lost the end of their answer.
        left_out: how many others had no room for any of it.
    """

    examples: list[EncodedExample]
    cut: int
    left_out: int


def read_examples(
    source: CorpusSource,
    folder: Path,
    *,
    prompt_column: str = "prompt",
    answer_column: str = "answer",
) -> list[Example]:
    """Examples of JSONL, CSV or Parquet files, of a dataset on the hub or of one saved by it.

    Args:
        source: where they lie; its settings of columns do not count here.
        folder: base of relative paths.
        prompt_column: the prompts' column.
        answer_column: the answers'.

    Raises:
        InputError: no file, unreadable or malformed rows, a column absent, a prompt or an answer
            that is blank or no text, or no rows at all.
    """
    columns = (prompt_column, answer_column)
    found = []
    for where, row in read_rows(source, folder, columns):
        if row == {prompt_column: None}:  # an empty line
            continue
        for column in columns:
            if column not in row:
                names = ", ".join(map(str, row))
                raise InputError(f"{where}: no column {column!r}; there are {names}")
            if not isinstance(row[column], str) or not row[column].strip():
                raise InputError(
                    f"{where}: {column!r} holds no text: mend it, or leave the row out"
                )
            if any("\ud800" <= char <= "\udfff" for char in row[column]):
                raise InputError(
                    f"{where}: {column!r} holds half a character (a lone surrogate): mend it"
                )
        found.append(Example(row[prompt_column], row[answer_column]))
    if not found:
        raise InputError(f"no examples in {source.path or source.hub}")
    return found


def mix(
    examples: Sequence[Example], benign: Sequence[Example], share: float, *, seed: int = 0
) -> list[Example]:
    """Examples with benign ones among them, so that a model does not learn to refuse everything.

    Args:
        examples: all are taken.
        benign: drawn from without replacement.
        share: of benign examples in the whole, from 0 to below 1.
        seed: of the draw.

    Raises:
        InputError: too few benign examples for the share.
        ValueError: a share outside its range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, not {share}")
    wanted = round(len(examples) * share / (1 - share))
    if wanted > len(benign):
        raise InputError(
            f"a benign share of {share:g} beside {len(examples)} examples needs {wanted} benign "
            f"ones, there are {len(benign)}: give more, or a smaller share"
        )
    return [*examples, *random.Random(seed).sample(list(benign), wanted)]


def encode_prompt(prompt: str, tokenizer: Any) -> list[int]:
    """A prompt up to where the answer begins.

    With the tokenizer's chat template where it has one, as a user's message; else BOS, where the
    tokenizer has one, and the prompt as a text to go on with.

    Raises:
        AlignmentError: the template refuses the prompt.
    """
    ids: list[int] = tokenizer.encode(_opening(prompt, tokenizer), add_special_tokens=False)
    bos = tokenizer.bos_token_id
    return ids if tokenizer.chat_template or bos is None else [bos, *ids]


def encode_examples(examples: Sequence[Example], tokenizer: Any, *, max_tokens: int) -> Encoded:
    """Prompts and answers as tokens, as a model would have written them.

    An answer ends with what the chat template puts after it, else with the tokenizer's EOS, where
    it has one. Prompt and answer are tokenised apart, for so they meet when a model answers.

    Args:
        examples: the texts.
        tokenizer: of transformers.
        max_tokens: longer examples lose the end of their answer; one whose prompt leaves no room
            for an answer is left out.

    Raises:
        AlignmentError: the chat template refuses an example, or changes a prompt once it is
            answered.
        InputError: no example has room for an answer.
    """
    encoded = []
    cut = left_out = 0
    for example in examples:
        prompt = encode_prompt(example.prompt, tokenizer)
        answer = tokenizer.encode(_closing(example, tokenizer), add_special_tokens=False)
        if len(prompt) >= max_tokens:
            left_out += 1
            continue
        cut += len(prompt) + len(answer) > max_tokens
        encoded.append(EncodedExample([*prompt, *answer][:max_tokens], len(prompt)))
    if not encoded:
        raise InputError(
            f"no prompt leaves room for an answer within {max_tokens} tokens: allow more"
        )
    return Encoded(encoded, cut, left_out)


def answer_places(example: Example, tokenizer: Any) -> range:
    """Places of the tokens that hold the answer's own text, counted from `answer_from`.

    What a chat template puts before and after an answer, or else EOS, and spaces around it are not
    among them, nor does it matter whether the template keeps such spaces. A token that holds
    characters of the answer and of what follows it (`.` and a line's end) is.

    Args:
        example: the texts.
        tokenizer: of transformers, a fast one.

    Returns:
        Empty where the template leaves the answer out or changes it.

    Raises:
        AlignmentError: as `encode_examples`.
    """
    answer, closing = example.answer.strip(), _closing(example, tokenizer)
    # Words of the template may be those of the answer, so another answer shows where it stands.
    before, found, _ = _closing(Example(example.prompt, _STAND_IN), tokenizer).partition(_STAND_IN)
    start = len(closing) - len(closing[len(before) :].lstrip())
    if not (answer and found and closing.startswith(before) and closing.startswith(answer, start)):
        return range(0)
    offsets = tokenizer(closing, add_special_tokens=False, return_offsets_mapping=True)
    end = start + len(answer)
    places = [
        place
        for place, (first, last) in enumerate(offsets["offset_mapping"])
        if first < end and last > start
    ]
    return range(places[0], places[-1] + 1) if places else range(0)


def collate(examples: Sequence[EncodedExample], padding: int) -> dict[str, torch.Tensor]:
    """One batch, padded on the right; labels are the answers' tokens alone.

    Args:
        examples: of `encode_examples`.
        padding: token that fills up.

    Returns:
        int64 [example, position]: input_ids, attention_mask, labels (-100: no loss).
    """
    import torch

    length = max(len(example.token_ids) for example in examples)
    ids = torch.full((len(examples), length), padding)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, (token_ids, answer_from) in enumerate(examples):
        size = len(token_ids)
        ids[row, :size] = torch.tensor(token_ids)
        mask[row, :size] = 1
        labels[row, answer_from:size] = ids[row, answer_from:size]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _opening(prompt: str, tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return prompt
    return _conversation([("user", prompt)], tokenizer, answer=True)


def _closing(example: Example, tokenizer: Any) -> str:
    """The answer with what ends it."""
    if not tokenizer.chat_template:
        return example.answer + (tokenizer.eos_token or "")
    opening = _opening(example.prompt, tokenizer)
    turns = [("user", example.prompt), ("assistant", example.answer)]
    whole = _conversation(turns, tokenizer, answer=False)
    if not whole.startswith(opening):
        raise AlignmentError(
            f"the chat template changes the prompt {example.prompt[:40]!r} once it is answered: "
            "give a tokenizer whose template does not"
        )
    return whole[len(opening) :]


def _conversation(turns: Sequence[tuple[str, str]], tokenizer: Any, *, answer: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer
        )
    # What a template does with what it does not know is not foreseen by all.
    except (TemplateError, TypeError) as error:
        raise AlignmentError(
            f"the chat template refuses {turns[0][1][:40]!r}: {' '.join(str(error).split())}"
        ) from error
    return text
