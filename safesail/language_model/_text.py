"""Texts as tokens: cut into pieces that fit the model, and gathered into batches."""

from __future__ import annotations

import hashlib
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

# Texts are sorted by length within a buffer of this many batches: with fewer, batches mix lengths
# and padding grows; with more, the first batch waits for more text.
_BATCHES_PER_BUFFER = 64

# A group ends rather than hold more padding than this share of its tokens, unless it would be
# smaller than this part of the most it may hold, and than so many tokens: tiny batches are slow.
_MOST_PADDING = 0.04
_TINY_PART = 1 / 16
_TINY_TOKENS = 1024

# Characters that are tokenised at once.
_LONGEST_SLICE = 1 << 18


@dataclass(frozen=True)
class TokenizedText:
    """A text, or a piece of one that was too long for the model, as tokens.

    Attributes:
        document: id of the document.
        start: place of the first token in the document; 0 unless the document was cut.
        token_ids: without BOS.
        token_strings: one per id; joined they are the text of the piece. Where tokens share one
            character of several bytes, the first has it and the others are empty.
        counted: which tokens may be content, one per id; None where all may. A chat template's own
            words may not.
        key: unsigned 64-bit digest of the document's id and whole text, the same in every piece:
            it tells documents apart that share an id.
    """

    document: str
    start: int
    token_ids: list[int]
    token_strings: list[str]
    counted: list[bool] | None = None
    key: int = 0


@dataclass(frozen=True)
class TokenBatch:
    """Texts side by side, padded on the right, on the model's device.

    Attributes:
        texts: row i of the tensors is texts[i].
        token_ids: int64 [batch, position], BOS first where asked.
        attention_mask: bool [batch, position]; False at padding.
        content_mask: bool [batch, position]; False at BOS, padding, special tokens and a chat
            template's own words.
        first: position of a text's first token: 1 with BOS, else 0.
    """

    texts: list[TokenizedText]
    token_ids: Tensor
    attention_mask: Tensor
    content_mask: Tensor
    first: int

    def part(self, rows: slice) -> TokenBatch:
        """Some of the texts, as wide as all."""
        return TokenBatch(
            self.texts[rows],
            self.token_ids[rows],
            self.attention_mask[rows],
            self.content_mask[rows],
            self.first,
        )


def token_spans(offsets: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Spans of a text that tile it, one per token.

    A tokenizer's offsets may leave gaps (trimmed spaces) and overlap (bytes of one character).
    Here each token reaches from the end of the one before to its own end: a gap belongs to the
    token after it, what follows the last token to that one.

    Args:
        offsets: start and end of each token in characters.
        length: of the text, in characters.
    """
    ends = [0]
    for _, end in offsets:
        ends.append(max(ends[-1], end))
    ends[-1] = length
    return list(pairwise(ends))


def document_key(document: str, text: str) -> int:
    """Unsigned 64-bit digest of a document's id and whole text."""
    # The length says where the id ends. Halves of surrogate pairs have a digest too.
    content = f"{len(document)}:{document}{text}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _slices(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text that are tokenised one by one, cut before white space where there is any.

    A tokenizer's time and memory grow faster than the length of what it is given.
    """
    begin = 0
    while len(text) - begin > _LONGEST_SLICE:
        latest = begin + _LONGEST_SLICE
        spaces = re.finditer(r"\s", text[begin + _LONGEST_SLICE // 2 : latest])
        found = [space.start() for space in spaces][-1:]
        end = begin + _LONGEST_SLICE // 2 + found[0] if found else latest
        yield begin, end
        begin = end
    yield begin, len(text)


def pieces(
    text: str,
    *,
    document: str,
    tokenizer: Any,
    tokens_per_piece: int,
    parts: Sequence[tuple[int, int]] | None = None,
    key: int = 0,
) -> list[TokenizedText]:
    """Tokenise a text without BOS and cut it; a text without tokens gives no piece.

    Args:
        text: the text.
        document: its id.
        tokenizer: of transformers.
        tokens_per_piece: most tokens of a piece.
        parts: start and end, in characters and ascending, of the parts whose tokens are counted;
            all by default. Pieces without such a token are left out.
        key: of the document, carried along.
    """
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for begin, end in _slices(text):
        encoded = tokenizer(
            text[begin:end], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids += encoded["input_ids"]
        offsets += [(begin + first, begin + last) for first, last in encoded["offset_mapping"]]
    if not ids:
        return []
    spans = token_spans(offsets, len(text))
    strings = [text[start:end] for start, end in spans]
    counted = None
    if parts is not None:
        begins, ends = [begin for begin, _ in parts], [end for _, end in parts]
        counted = [
            # The first part that ends after the token's start: does it begin before its end?
            (number := bisect_right(ends, start)) < len(parts) and begins[number] < end
            for start, end in offsets
        ]
    found = []
    for start in range(0, len(ids), tokens_per_piece):
        cut = slice(start, start + tokens_per_piece)
        mask = counted and counted[cut]
        if mask is None or any(mask):
            found.append(TokenizedText(document, start, ids[cut], strings[cut], mask, key))
    return found


def bucketed(
    texts: Iterable[TokenizedText], *, first: int, tokens_per_batch: int
) -> Iterator[list[TokenizedText]]:
    """Group texts of like length; every text appears once, in the same order in every run.

    A group padded to its longest text holds at most `tokens_per_batch` tokens, unless a single
    text is longer, and little padding, unless it would be tiny. Groups of one buffer are shuffled,
    so that a sample of the first batches is not a sample of the shortest texts.

    The groups depend on these texts and their order alone.
    """
    buffer: list[TokenizedText] = []
    tokens = 0
    for text in texts:
        buffer.append(text)
        tokens += len(text.token_ids) + first
        if tokens >= _BATCHES_PER_BUFFER * tokens_per_batch:
            yield from _groups(buffer, first, tokens_per_batch)
            buffer, tokens = [], 0
    yield from _groups(buffer, first, tokens_per_batch)


def _groups(
    buffer: list[TokenizedText], first: int, tokens_per_batch: int
) -> list[list[TokenizedText]]:
    groups: list[list[TokenizedText]] = []
    group: list[TokenizedText] = []
    tokens = 0
    tiny = min(_TINY_PART * tokens_per_batch, _TINY_TOKENS)
    for text in sorted(buffer, key=lambda text: len(text.token_ids)):
        # Sorted: the newcomer is the longest of its group.
        size = len(text.token_ids) + first
        padded = (len(group) + 1) * size
        loose = padded > (1 + _MOST_PADDING) * (tokens + size)
        full = padded > tokens_per_batch or (loose and tokens >= tiny)
        if group and full:
            groups.append(group)
            group, tokens = [], 0
        group.append(text)
        tokens += size
    if group:
        groups.append(group)
    random.Random(0).shuffle(groups)
    return groups


def pad(
    texts: list[TokenizedText],
    *,
    bos_token_id: int | None,
    special_ids: Sequence[int],
    device: str,
) -> TokenBatch:
    """Texts as one batch; BOS first where an id is given."""
    first = 0 if bos_token_id is None else 1
    width = first + max(len(text.token_ids) for text in texts)
    # Padding is masked everywhere, so any id of the vocabulary will do: 0 is always one.
    ids = torch.zeros(len(texts), width, dtype=torch.int64)
    attention = torch.zeros(len(texts), width, dtype=torch.bool)
    content = torch.zeros_like(attention)
    for row, text in enumerate(texts):
        end = first + len(text.token_ids)
        ids[row, first:end] = torch.tensor(text.token_ids)
        attention[row, :end] = True
        content[row, first:end] = True if text.counted is None else torch.tensor(text.counted)
    if bos_token_id is not None:
        ids[:, 0] = bos_token_id
    content &= ~torch.isin(ids, torch.tensor(sorted(special_ids), dtype=torch.int64))
    return TokenBatch(texts, ids.to(device), attention.to(device), content.to(device), first)
