"""Whole texts as tokens, answers added to them, and cut where the model reads them in pieces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safesail.errors import ModelError
from safesail.language_model._chat import as_conversation
from safesail.language_model._text import TokenizedText, document_key, pieces

if TYPE_CHECKING:
    from safesail.language_model._model import LanguageModel

# Tokens before a text that decide how its first one is written.
_BEFORE = 8
_INCOMPLETE = "\ufffd"


def whole_text(
    model: LanguageModel, text: str, *, document: str, chat: bool = False, answered: bool = False
) -> TokenizedText | None:
    """A text as the model reads it, without BOS and not cut.

    Args:
        model: the language model.
        text: any text.
        document: its id, for messages.
        chat: put it into the model's chat template as a user's message.
        answered: end the template where the model's answer begins.

    Returns:
        None where the text has no token of its own.

    Raises:
        ModelError: the tokenizer has no chat template, or one that does not take the text.
    """
    tokenizer = model.tokenizer
    key, parts = document_key(document, text), None
    if chat and text.strip():
        text, parts = as_conversation(
            [("user", text)], tokenizer, name=model.name, document=document, section="ranking"
        )
        if answered:
            text += _answer_begins(text, parts, tokenizer, model.name)
    found = pieces(
        text,
        document=document,
        tokenizer=tokenizer,
        tokens_per_piece=sys.maxsize,
        parts=parts,
        key=key,
    )
    return found[0] if found else None


def _answer_begins(
    conversation: str, parts: Sequence[tuple[int, int]], tokenizer: Any, name: str
) -> str:
    """What the template puts between a message and the model's answer to it."""
    # The template does not change what it is given, so any text shows it.
    messages = [{"role": "user", "content": "text"}]
    plain, asked = (
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
        for answer in (False, True)
    )
    if not asked.startswith(plain):
        raise ModelError(
            f"the chat template of {name!r} changes a message when it is to be answered: "
            "leave the chat template out"
        )
    begins: str = asked[len(plain) :]
    return begins


def with_answer(text: TokenizedText, answer: Sequence[int], model: LanguageModel) -> TokenizedText:
    """A text and the tokens that the model went on with, which are not decoded and read again.

    All tokens of the answer are counted, but for special ones, which batches leave out.
    """
    strings = token_strings(answer, before=text.token_ids, tokenizer=model.tokenizer)
    counted = None
    if text.counted is not None:
        counted = text.counted + [True] * len(answer)
    return replace(
        text,
        token_ids=[*text.token_ids, *answer],
        token_strings=[*text.token_strings, *strings],
        counted=counted,
    )


def cut(text: TokenizedText, tokens_per_piece: int) -> list[TokenizedText]:
    """A whole text in pieces, as `LanguageModel.tokenize` cuts it; those not counted left out."""
    found = []
    for start in range(0, len(text.token_ids), tokens_per_piece):
        span = slice(start, start + tokens_per_piece)
        counted = text.counted and text.counted[span]
        if counted is None or any(counted):
            found.append(
                replace(
                    text,
                    start=text.start + start,
                    token_ids=text.token_ids[span],
                    token_strings=text.token_strings[span],
                    counted=counted,
                )
            )
    return found


def token_strings(
    token_ids: Sequence[int], *, before: Sequence[int] = (), tokenizer: Any
) -> list[str]:
    """What each token adds to a text.

    Where tokens share one character of several bytes, the first has it and the others are empty.

    Args:
        token_ids: of the tokens.
        before: of the text that they follow.
        tokenizer: of transformers.
    """
    ids = [*before[-_BEFORE:], *token_ids]
    done = len(ids) - len(token_ids)
    strings = [""] * len(token_ids)
    first = done  # the first token whose character is not complete

    def decoded(begin: int, end: int) -> str:
        text: str = tokenizer.decode(ids[begin:end], clean_up_tokenization_spaces=False)
        return text

    for end in range(done + 1, len(ids) + 1):
        begin = max(0, first - _BEFORE)
        known, whole = decoded(begin, first), decoded(begin, end)
        if whole.endswith(_INCOMPLETE) and end < len(ids) and end - first < _BEFORE:
            continue
        strings[first - done] = whole[len(known) :]
        first = end
    return strings


def word_token(word: str, tokenizer: Any) -> int | None:
    """The token that a word begins with; None where the tokenizer writes it without one."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    # Some tokenizers put a token for the space alone before a word.
    solid = [i for i in ids if tokenizer.decode([i]).strip()] or ids
    return solid[0] if solid else None
