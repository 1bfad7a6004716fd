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

# Of one document in so many, so many characters are tokenised to reckon a chunk's tokens.
_SAMPLED = 32
_BEGINNING = 4096


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
    reckoned from a sample of each: the beginning of every 32nd document.

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
        before, number = 0.0, -1
        for number, documents in enumerate(self._cut()):
            left = ceil(self.max_tokens - before)
            before += self._reckoned(documents) if number else self._count(documents, left)
            if wanted(number):
                yield Chunk(number, documents, left)
            if before >= self.max_tokens:
                break
        self.count = number + 1

    def texts(self, chunk: Chunk) -> list[TokenizedText]:
        """A chunk's documents as texts."""
        return self._tokenize(chunk.documents, chunk.tokens)

    def _count(self, documents: list[Document], tokens: int) -> int:
        return sum(len(text.token_ids) for text in self._tokenize(documents, tokens))

    def _reckoned(self, documents: list[Document]) -> float:
        """About how many tokens documents have."""
        sample = [
            # What a chat template adds to a conversation belongs to it.
            document if document.messages else Document(document.id, document.text[:_BEGINNING])
            for document in documents[::_SAMPLED]
        ]
        read = sum(len(document.text) for document in sample)
        whole = sum(len(document.text) for document in documents)
        return self._count(sample, self.max_tokens) * whole / read

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
