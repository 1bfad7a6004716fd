"""Several sources read as one corpus."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from safesail.corpus._document import Document
from safesail.corpus._files import data_files, locate
from safesail.corpus._seen import SeenTexts
from safesail.corpus._sources import read_source
from safesail.errors import InputError
from safesail.fingerprint import fingerprint_files
from safesail.study import CorpusSource


class Corpus:
    """Documents of several sources, mixed by weight until all are read.

    The next document comes from the source whose characters given so far, divided by its weight,
    are fewest; of equal ones, from the first. When a source ends the others go on.

    A text that stands in the corpus more than once is read once, so that no explanation is scored
    on a copy of a document it was written from; a copy does not count in the mixture. What was
    read is remembered in 16 MiB, however many texts there are: see `SeenTexts`.

    Iterating again reads the sources again from their start, so that passes see the same order.

    Raises (while iterating):
        InputError: a file is missing, not UTF-8 or malformed (the row is named), a column is
            absent, a row has no id, what should be messages is not, the hub fails, or the sources
            hold no text at all.
    """

    def __init__(
        self, sources: Sequence[CorpusSource], folder: Path, extra: Sequence[Document] = ()
    ) -> None:
        """Describe a corpus; nothing is read yet.

        Args:
            sources: files (paths relative to `folder`) and hub datasets.
            folder: base of relative paths.
            extra: further documents, one more source of weight 1 (the concepts' own texts).
        """
        self.sources = tuple(sources)
        self.folder = folder
        self.extra = tuple(extra)

    def __iter__(self) -> Iterator[Document]:
        paths = [locate(source, self.folder) for source in self.sources]
        streams: list[Iterator[Document]] = [
            read_source(source, list(zip(names, places, strict=True)))
            for source, names, places in zip(
                self.sources, _names(self.sources, paths), paths, strict=True
            )
        ]
        streams.append(iter(self.extra))
        weights = [*(source.weight for source in self.sources), 1.0]
        characters = dict.fromkeys(range(len(streams)), 0)
        seen = SeenTexts()
        empty = True
        while characters:
            # Of equal ones min takes the first, and the keys stand in the order of the sources.
            place = min(characters, key=lambda place: characters[place] / weights[place])
            document = next(streams[place], None)
            if document is None:
                del characters[place]
            elif seen.add(document.text):
                characters[place] += len(document.text)
                empty = False
                yield document
        if empty:
            names = ", ".join(source.path or f"hub {source.hub}" for source in self.sources)
            raise InputError(f"the corpus is empty: no text in {names}")

    def fingerprint(self) -> str:
        """What the corpus is made of, as text that changes when a local file or setting does.

        Raises:
            InputError: a local file is missing.
        """
        parts = []
        for source in self.sources:
            settings = source.model_dump(exclude={"path", "hub"}, exclude_none=True)
            place = f"hub:{source.hub}"
            paths = [path for path in locate(source, self.folder) if path is not None]
            if source.path is not None:
                files = data_files(paths, source.split)
                place = f"{Path(source.path).name}:{fingerprint_files(files)}"
            parts.append(":".join([place, *(f"{key}={settings[key]}" for key in settings)]))
        if self.extra:
            texts = "\0".join(sorted(document.text for document in self.extra))
            digest = hashlib.blake2b(texts.encode(), digest_size=8).hexdigest()
            parts.append(f"{len(self.extra)} concept texts:{digest}")
        return ", ".join(parts)


def _names(
    sources: Sequence[CorpusSource], paths: Sequence[Sequence[Path | None]]
) -> list[list[str]]:
    """What document ids begin with: a file's name, and a number where two files share one."""
    earlier: Counter[str] = Counter()

    def name(base: str) -> str:
        earlier[base] += 1
        return f"{base}({earlier[base]})" if earlier[base] > 1 else base

    return [
        [name(str(source.hub) if path is None else path.name) for path in places]
        for source, places in zip(sources, paths, strict=True)
    ]
