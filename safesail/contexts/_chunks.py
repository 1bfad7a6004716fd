"""A corpus in chunks: the unit of batches, of shards and of what is counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from safesail.corpus import Corpus, Document
from safesail.language_model import TokenizedText

Item = TypeVar("Item")


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents of a corpus.

    Attributes:
        number: 0 for the first.
        documents: whole ones.
        tokens: how many are read of them at most.
    """

    number: int
    documents: list[Document]
    tokens: int


class Chunks:
    """A corpus cut into chunks, the same ones whoever reads them, up to a number of tokens.

    Documents are counted in characters, so that nobody has to tokenise what others read. The
    limit on tokens holds exactly within the first chunk; beyond, the tokens of earlier chunks are
    reckoned from their characters, at the first chunk's tokens per character.

    Attributes:
        max_tokens: about so many are read in all.
        count: how many chunks there are; 0 until `read` has come to the end.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenize: Callable[[list[Document], int], list[TokenizedText]],
        *,
        max_tokens: int,
        characters: int,
    ) -> None:
        """Nothing is read yet.

        Args:
            corpus: the documents.
            tokenize: makes texts of documents, up to a number of tokens.
            max_tokens: about so many are read in all.
            characters: a chunk ends with the document that reaches so many.
        """
        self._corpus = corpus
        self._tokenize = tokenize
        self.max_tokens = max_tokens
        self._characters = characters
        self.count = 0

    def read(self, wanted: Callable[[int], bool]) -> Iterator[Chunk]:
        """The chunks whose number is wanted, in order.

        Raises:
            InputError: as iterating the corpus.
        """
        rate, before, number = 0.0, 0, -1
        for number, documents in enumerate(self._cut()):
            characters = sum(len(document.text) for document in documents)
            left = self.max_tokens
            if number == 0:
                texts = self._tokenize(documents, self.max_tokens)
                read = sum(len(text.token_ids) for text in texts)
                rate = read / characters
                last = read >= self.max_tokens
            else:
                left = ceil(self.max_tokens - rate * before)
                last = rate * (before + characters) >= self.max_tokens
            before += characters
            if wanted(number):
                yield Chunk(number, documents, left)
            if last:
                break
        self.count = number + 1

    def texts(self, chunk: Chunk) -> list[TokenizedText]:
        """A chunk's documents as texts."""
        return self._tokenize(chunk.documents, chunk.tokens)

    def _cut(self) -> Iterator[list[Document]]:
        documents: list[Document] = []
        characters = 0
        for document in self._corpus:
            documents.append(document)
            characters += len(document.text)
            if characters >= self._characters:
                yield documents
                documents, characters = [], 0
        if documents:
            yield documents


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in a thread while the one before is used."""
    nothing = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = thread.submit(next, items, nothing)
            yield item  # type: ignore[misc]
