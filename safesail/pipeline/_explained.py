"""The SAEs and the explanations of a study, as alignment takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safesail.errors import InputError
from safesail.pipeline._corrected import explanations_of
from safesail.pipeline._workspace import Workspace
from safesail.study import require_same
from safesail.tables import explanation_rank, read_configuration

if TYPE_CHECKING:
    from safesail.sparse_autoencoder import SparseAutoencoder


def saes_of(workspace: Workspace, names: Sequence[str] = ()) -> Sequence[str]:
    """SAEs by name; where none is named, those that have explanations.

    Raises:
        InputError: none is named, and none has explanations.
    """
    if names:
        return names
    from safesail.pipeline._diagnose import explained_saes

    try:
        return explained_saes(workspace.study)
    except InputError:
        raise InputError(
            f"no SAE is explained in {workspace.study.folder}: name some with --sae, or run "
            "`safesail explain`, so that the subspace's features can be read"
        ) from None


def best_explanations(workspace: Workspace, sae: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """The best explanation and the concepts of each feature that has one."""
    language = workspace.settings.judge.language
    best: dict[int, dict[str, Any]] = {}
    for row in explanations_of(workspace.study, sae):
        known = best.get(row["feature"])
        if known is None or explanation_rank(row, language) > explanation_rank(known, language):
            best[row["feature"]] = row
    return {
        feature: (row["explanation"], tuple(row["judge_concepts"] or row["concepts"] or ()))
        for feature, row in best.items()
        if row["explanation"] is not None
    }


def require_explained(workspace: Workspace, sae: SparseAutoencoder) -> None:
    """Refuse explanations of another SAE of the same name, whose features have other numbers.

    Raises:
        StudyConflictError: they were made with other files than the SAE's.
    """
    path = workspace.study.explanations(sae.name)
    # Imported rows name no files that they were made with.
    made = (read_configuration(path) or {}).get("sae")
    if made is not None:
        require_same({"sae": made}, {"sae": sae.fingerprint}, path)


def features_of(
    sae: str, explanations: Mapping[int, tuple[str, tuple[str, ...]]], concepts: Sequence[str]
) -> list[int] | None:
    """Features that explanations give to a concept, or to a child of it; None for no concept.

    Raises:
        InputError: there is no such feature.
    """
    if not concepts:
        return None
    if not explanations:
        raise InputError(
            f"{sae} has no explained feature: run `safesail explain --sae {sae}`, or name others "
            "with --sae"
        )
    found: set[int] = set()
    for name in concepts:
        of_name = {
            feature
            for feature, (_, of) in explanations.items()
            if any(one == name or one.startswith(f"{name}/") for one in of)
        }
        if not of_name:
            known = ", ".join(sorted({one for _, of in explanations.values() for one in of}))
            raise InputError(
                f"no explained feature of {sae} is given to {name!r}; its explanations name "
                f"{known or 'no concept'}"
            )
        found |= of_name
    return sorted(found)
