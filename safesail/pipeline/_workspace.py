"""What the stages of one command share: the loaded model, concepts, corpus, and settings."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel

from safesail.builtin import PREFIX, builtin_path
from safesail.concepts import ConceptSet, load_concepts
from safesail.corpus import Corpus, Document
from safesail.errors import CandidateError, StorageError
from safesail.study import CorpusSource, Study, require_same
from safesail.tables import TableSchema, read_configuration, read_table

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel, TokenizedText
    from safesail.sparse_autoencoder import Candidate, Downloads, SparseAutoencoder

# Templates whose change makes judged explanations others than before.
_PROMPTS = ("explain", "items", "segments", "simulate", "detection", "fuzzing", "repair")

# How the work is done, which changes nothing but the last digits of an activation.
_NOT_SCIENTIFIC = (
    "collection.tokens_per_batch",
    "collection.chunk_characters",
    "collection.checkpoint_seconds",
)

Progress = Callable[[Iterable, str], Iterable]
Tell = Callable[[str], None]
Approve = Callable[["Downloads"], bool]


def no_progress(items: Iterable, label: str) -> Iterable:
    """Show nothing."""
    return items


def tell_nothing(line: str) -> None:
    """Print nothing."""


class Workspace:
    """A study with what its stages load, once."""

    def __init__(
        self,
        study: Study,
        overwrite: bool,
        progress: Progress,
        approve: Approve | None = None,
        tell: Tell = tell_nothing,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            study: the study.
            overwrite: discard results of other settings instead of refusing to go on.
            progress: wraps an iterable with a label.
            approve: says whether published SAEs may be downloaded; None downloads unasked.
            tell: is given lines for people.
        """
        self.tell = tell
        self.study = study
        self.settings = study.configuration
        self.overwrite = overwrite
        self.progress = progress
        self._approve = approve

    @cached_property
    def concepts(self) -> ConceptSet:
        """The study's concepts."""
        return load_concepts(self.settings.concepts.files, self.study.folder)

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, loaded."""
        from safesail.language_model import LanguageModel

        settings = self.settings.model
        return LanguageModel.load(
            self.model_name,
            folder=self.study.folder,
            device=settings.device,
            dtype=settings.dtype,
        )

    def release_model(self) -> None:
        """Let go of the loaded model, so that its memory is free; the next use loads it anew."""
        if self.__dict__.pop("model", None) is not None:
            # It is held in circles.
            gc.collect()

    @cached_property
    def _model_fingerprint(self) -> str:
        """Identifies the model's files; loads the model only where it must be fetched first."""
        from safesail.language_model import fingerprint_model

        known = fingerprint_model(self.model_name, folder=self.study.folder)
        return known or self.model.fingerprint

    @property
    def model_name(self) -> str:
        name = self.settings.model.name
        if name.startswith(PREFIX):
            return str(builtin_path(name.removeprefix(PREFIX), "model"))
        return name

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The study's candidates: those that it names, and those that it trained.

        Raises:
            CandidateError: there are none, or a name matches none.
        """
        from safesail.sparse_autoencoder import find_candidates, trained_folders

        trained = [str(folder) for folder in trained_folders(self.study.saes)]
        specifications = [*self.settings.candidates.saes, *trained]
        if not specifications:
            raise CandidateError(
                "this study has no SAEs: train some with `safesail train-saes`, or name some in "
                "safesail.toml (`candidates.saes`)"
            )
        return find_candidates(specifications, self.study.folder)

    def load_sae(self, name: str) -> SparseAutoencoder:
        """Load a candidate by name.

        Raises:
            CandidateError: no such candidate, or it cannot be loaded or does not fit.
        """
        sae = self._load_sae(name, self.model.device)
        sae.check_fits(self.model)
        return sae

    def load_sae_alone(self, name: str) -> SparseAutoencoder:
        """Load a candidate to look at its weights, without the model.

        Raises:
            CandidateError: no such candidate, or it cannot be loaded.
        """
        return self._load_sae(name, "cpu")

    def _load_sae(self, name: str, device: str) -> SparseAutoencoder:
        from safesail.sparse_autoencoder import SparseAutoencoder

        for candidate in self.candidates:
            if candidate.name == name:
                self.ask_to_download([candidate])
                return SparseAutoencoder.load(candidate, device=device)
        names = ", ".join(candidate.name for candidate in self.candidates)
        raise CandidateError(f"no candidate {name!r} in this study; there are {names}")

    def ask_to_download(self, candidates: Iterable[Candidate]) -> None:
        """Ask before published SAEs are fetched, where someone is there to be asked.

        Raises:
            CandidateError: they may not be downloaded.
        """
        if self._approve is None:
            return
        from safesail.sparse_autoencoder import pending_downloads

        downloads = pending_downloads(candidates)
        if downloads is not None and not self._approve(downloads):
            raise CandidateError(
                f"nothing was downloaded ({downloads}): restrict the SAEs, or allow it"
            )

    @cached_property
    def corpus(self) -> Corpus:
        """The study's corpus."""
        extra: list[Document] = []
        if self.settings.corpus.concept_texts:
            # The two of a pair are nearly one text: their ids keep them in one split.
            extra = [
                Document(f"concept-pair:{number}~{side}", text)
                for number, pair in enumerate(self.concepts.pairs, start=1)
                for side, text in (("positive", pair.positive), ("negative", pair.negative))
            ]
        return Corpus(self.documents.sources, self.study.folder, extra)

    @cached_property
    def documents(self) -> Corpus:
        """The study's corpus without the concepts' texts."""
        sources = [_with_builtin(source) for source in self.settings.corpus.sources]
        return Corpus(sources, self.study.folder)

    def sample_of(self, texts: Iterable[TokenizedText]) -> list[TokenizedText]:
        """The part of the tokenised corpus that the ranking's sample is made of."""
        sample, seen = [], 0
        for text in texts:
            sample.append(text)
            seen += len(text.token_ids)
            if seen >= self.settings.ranking.sample_tokens:
                break
        return sample

    def ranking_settings(self) -> dict[str, Any]:
        """Settings that a ranking depends on."""
        return {
            **self._shared_settings(),
            "concepts": self.concepts.fingerprint(),
            **_flat("ranking", self.settings.ranking),
        }

    def training_settings(self) -> dict[str, Any]:
        """Settings that a trained SAE depends on, beside how it is trained."""
        return {
            "model.name": self.settings.model.name,
            "model": self._model_fingerprint,
            "corpus": self.documents.fingerprint(),
        }

    def contexts_settings(self, sae: str) -> dict[str, Any]:
        """Settings that an SAE's contexts depend on."""
        fingerprint = next((c.fingerprint() for c in self.candidates if c.name == sae), None)
        return {
            **self._shared_settings(),
            "sae": fingerprint,
            "corpus.max_tokens": self.settings.corpus.max_tokens,
            "ranking.sample_tokens": self.settings.ranking.sample_tokens,
            **{
                key: value
                for key, value in _flat("collection", self.settings.collection).items()
                if key not in _NOT_SCIENTIFIC
            },
        }

    def explanations_settings(self, sae: str) -> dict[str, Any]:
        """Settings that an SAE's explanations depend on."""
        from safesail.judging import prompt_version

        return {
            **self.ranking_settings(),
            **self.contexts_settings(sae),
            **{f"prompts/{task}": prompt_version(task) for task in _PROMPTS},
        }

    def _shared_settings(self) -> dict[str, Any]:
        return {
            "model.name": self.settings.model.name,
            "model.dtype": self.settings.model.dtype,
            "model": self._model_fingerprint,
            "corpus": self.corpus.fingerprint(),
        }

    def still_valid(self, path: Path, settings: dict[str, Any]) -> bool:
        """Whether a result may be kept; False where it must be made anew.

        Raises:
            StudyConflictError: other settings made it, and overwriting was not asked for.
        """
        stored = read_configuration(path)
        if stored is None:
            return False
        if self.overwrite and stored != settings:
            return False
        require_same(stored, settings, path)
        return True

    def rows_to_keep(
        self, path: Path, schema: TableSchema, settings: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Rows of a table that the present settings made; where it must be made anew, none.

        Imported rows depend on no settings, and are kept.

        Raises:
            StudyConflictError: as in `still_valid`.
        """
        if self.still_valid(path, settings):
            return rows_of(path, schema)
        try:
            known = rows_of(path, schema)
        except StorageError:  # of another version of safesail, which is why it is made anew
            return []
        return [row for row in known if row.get("status") == "imported"]


def rows_of(path: Path, schema: TableSchema) -> list[dict[str, Any]]:
    """All rows of a table; none where it does not exist."""
    table: pa.Table | None = read_table(path, schema) if path.exists() else None
    return table.to_pylist() if table else []


def _flat(section: str, settings: BaseModel) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in settings.model_dump().items()}


def _with_builtin(source: CorpusSource) -> CorpusSource:
    if source.path is None or not source.path.startswith(PREFIX):
        return source
    path = builtin_path(source.path.removeprefix(PREFIX), "corpus.parquet")
    return source.model_copy(update={"path": str(path)})
