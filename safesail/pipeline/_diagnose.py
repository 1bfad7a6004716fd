"""Diagnose texts with what a study has explained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import InputError
from safesail.pipeline._collect import sink_threshold
from safesail.pipeline._corrected import explanations_of
from safesail.pipeline._results import load_results
from safesail.pipeline._workspace import Approve, Workspace, no_progress, rows_of
from safesail.study import Study, require_same
from safesail.tables import EXPLANATIONS, FEATURES, read_configuration

if TYPE_CHECKING:
    from safesail.diagnosis import Comparison, Diagnosis, ExplainedFeature, ExplainedSae
    from safesail.sparse_autoencoder import SparseAutoencoder


class Diagnoser:
    """A study's explained features, loaded once to diagnose many texts.

    Every SAE with an explanations table takes part. Nothing is written. One diagnoser serves one
    thread at a time.

    Attributes:
        study: the study.
    """

    def __init__(
        self,
        study: Study,
        *,
        sae: str | None = None,
        layer: int | None = None,
        concepts: Sequence[str] = (),
        approve: Approve | None = None,
    ) -> None:
        """Nothing is loaded yet; `load` or the first text does that.

        Args:
            study: with explanations.
            sae: only this SAE.
            layer: only SAEs at this layer.
            concepts: only features that belong to one of these, and their trajectories; by default
                all features, and the trajectories of concepts without a parent.
            approve: is told what must be downloaded of published SAEs, and says whether it may be;
                None downloads it unasked.
        """
        self.study = study
        self._sae, self._layer, self._wanted = sae, layer, tuple(concepts)
        self._workspace = Workspace(study, False, no_progress, approve)

    def load(self) -> None:
        """Load model and SAEs, so that the first text need not wait for it.

        Raises:
            InputError: the study has no explanations, or none of what is asked for.
            StudyConflictError: they were made with another model, or other SAEs of the same names.
            SafesailError: see `safesail.errors`.
        """
        self._saes  # noqa: B018

    def diagnose(
        self,
        text: str,
        *,
        chat: bool = False,
        generate: int = 0,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Diagnosis:
        """Which explained features fire on each token of a text.

        Args:
            text: any text; longer than an SAE's texts it is cut in pieces, as in collection.
            chat: put it into the model's chat template as a user's message.
            generate: let the model answer first, with at most so many tokens.
            temperature: of the answer; 0 takes the likeliest token each time.
            seed: of the answer's draws, above temperature 0.

        Raises:
            InputError: the text has no words, or leaves no room for an answer; or as in `load`.
            SafesailError: as in `load`.
        """
        from safesail.diagnosis import Answering, diagnose_text

        return diagnose_text(
            self._workspace.model,
            self._saes,
            text,
            concepts=self._concepts,
            chat=chat,
            answering=Answering(generate, temperature, seed) if generate else None,
        )

    def compare(self, first: str, second: str, **options: Any) -> Comparison:
        """Two texts side by side, largest difference first.

        Args:
            first: a text.
            second: another.
            options: of `diagnose`, for both.

        Raises:
            SafesailError: as in `diagnose`.
        """
        from safesail.diagnosis import compare

        return compare(self.diagnose(first, **options), self.diagnose(second, **options))

    @cached_property
    def _concepts(self) -> tuple[str, ...]:
        concepts = self._workspace.concepts
        return concepts.select(self._wanted) if self._wanted else concepts.top_level

    @cached_property
    def _saes(self) -> tuple[ExplainedSae, ...]:
        from safesail.diagnosis import ExplainedSae

        chosen = self._explained()
        loaded = []
        for name, (features, left_out) in chosen.items():
            sae = self._workspace.load_sae(name)
            self._require_same_models(name, sae)
            threshold = sink_threshold(self._workspace, name)
            loaded.append(ExplainedSae(sae, tuple(features), tuple(left_out), threshold))
        return tuple(loaded)

    def _explained(self) -> dict[str, tuple[list[ExplainedFeature], list[int]]]:
        """Explained features by SAE, and those left out, of what is asked for."""
        from safesail.diagnosis import explained_features

        names = explained_saes(self.study)
        if self._sae is not None and self._sae not in names:
            raise InputError(
                f"SAE {self._sae!r} has no explanations in {self.study.folder}; there are: "
                f"{', '.join(names)}; run `safesail explain --sae {self._sae}` first"
            )
        wanted = set(self._concepts) if self._wanted else None
        found = {}
        for name in [self._sae] if self._sae else names:
            rows = explanations_of(self.study, name)
            if self._layer is not None and any(row["layer"] != self._layer for row in rows):
                continue
            features, left_out = explained_features(
                rows,
                rows_of(self.study.features(name), FEATURES),
                self.study.configuration.judge.language,
            )
            if wanted is not None:
                features = [one for one in features if wanted & set(one.concepts)]
            if features:
                found[name] = (features, left_out)
        if not found:
            asked = [f"at layer {self._layer}"] if self._layer is not None else []
            asked += [f"of {', '.join(self._wanted)}"] if self._wanted else []
            raise InputError(
                f"no explained feature {' '.join(asked)} in {self.study.folder}: explain more "
                f"with `safesail explain`, or ask for less; explained SAEs: {', '.join(names)}"
            )
        return found

    def _require_same_models(self, name: str, sae: SparseAutoencoder) -> None:
        """Refuse strengths that would be taken of other activations than q999 was."""
        path = self.study.explanations(name)
        # Imported rows name no files that they were made with.
        made = read_configuration(path) or {}
        present = {"model": self._workspace.model.fingerprint, "sae": sae.fingerprint}
        present = {key: value for key, value in present.items() if key in made}
        require_same({key: made[key] for key in present}, present, path)


def explained_saes(study: Study) -> list[str]:
    """SAEs that have explanations, by layer and name.

    Raises:
        InputError: there are none.
    """
    rows = [
        (row["layer"], row["sae"])
        for path in sorted(Path(study.folder / "explanations").glob("*.parquet"))
        for row in rows_of(path, EXPLANATIONS)[:1]
    ]
    if not rows:
        load_results(study, "explanations")  # says what to run
    return [name for _, name in sorted(rows)]
