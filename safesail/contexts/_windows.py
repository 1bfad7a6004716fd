"""Cut texts into windows, each with a key and a split that are the same in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safesail.contexts._hashing import digest, mix
from safesail.language_model import TokenBatch, TokenizedText

WINDOW_TOKENS = 32
SPLITS = ("explain", "score")


@dataclass(frozen=True)
class Windows:
    """The windows that tile some texts, in the order of texts and of places.

    Attributes:
        text: index of the text each window lies in, [W].
        first: place of its first token in that text, [W].
        length: its tokens, at most 32, [W].
        key: hash of document and place, [W].
        split: 0 for `explain`, 1 for `score`, [W].
    """

    text: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    key: NDArray[np.int64]
    split: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[TokenizedText]) -> Windows:
        """Tile every text with windows of at most 32 tokens, of lengths as equal as can be."""
        tokens = np.array([len(text.token_ids) for text in texts], dtype=np.int64)
        counts = -(-tokens // WINDOW_TOKENS)
        owner = np.repeat(np.arange(len(texts)), counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        first = number * tokens[owner] // counts[owner]
        end = (number + 1) * tokens[owner] // counts[owner]
        # Numbers of 64 bits without sign, held as such with one.
        keys = np.array([text.key for text in texts], dtype=np.uint64).view(np.int64)
        starts = np.array([text.start for text in texts], dtype=np.int64)
        place = mix(torch.from_numpy(starts[owner] + first))
        key = mix(torch.from_numpy(keys[owner]) ^ place).numpy()
        split = np.array([SPLITS.index(split_of(text.document)) for text in texts], dtype=np.int64)
        return cls(owner, first, end - first, key, split[owner])

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class ContentTokens:
    """Where the content tokens of a batch lie in its windows, in the order of windows.

    Attributes:
        window: number of the window, ascending, int64 [T].
        place: place in the window, int64 [T].
        count: content tokens of each window, int64 [W].
    """

    window: Tensor
    place: Tensor
    count: Tensor

    @classmethod
    def of(cls, batch: TokenBatch, windows: Windows, content: Tensor) -> ContentTokens:
        """Look up the content tokens of a batch.

        Args:
            batch: its texts are those of `windows`.
            windows: all windows of the batch.
            content: bool [batch, position], on the batch's device.
        """
        is_text = batch.attention_mask.clone()
        is_text[:, : batch.first] = False
        number = np.repeat(np.arange(len(windows)), windows.length)
        begin = np.repeat(np.cumsum(windows.length) - windows.length, windows.length)
        counted = content[is_text]
        window = torch.from_numpy(number).to(content.device)[counted]
        place = torch.from_numpy(np.arange(len(number)) - begin).to(content.device)[counted]
        return cls(window, place, torch.bincount(window, minlength=len(windows)))


def split_of(document: str) -> str:
    """`explain` or `score`: all of a document's windows serve one purpose only.

    What follows `~` in an id tells documents of one family apart, which share a split.
    """
    family = document.partition("~")[0] if document.startswith("concept-pair:") else document
    return SPLITS[digest(f"split\0{family}") % 2]
