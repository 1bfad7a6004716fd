"""What a study has explained, over concepts and layers, and its features on a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.pipeline._corrected import explanations_of
from safesail.pipeline._diagnose import explained_saes
from safesail.pipeline._workspace import Workspace, no_progress, rows_of
from safesail.study import Study
from safesail.tables import (
    FEATURES,
    read_configuration,
    read_table,
    table_from_rows,
    write_table,
)

if TYPE_CHECKING:
    from safesail.diagnosis import Landscape


def landscape(study: Study) -> Landscape:
    """Sum up a study's explained SAEs; no model is loaded.

    Raises:
        InputError: the study has no explanations, or its concepts cannot be read.
        StorageError: a table cannot be read.
    """
    from safesail.diagnosis import SurveyedSae, entity_profiles, explained_features, survey
    from safesail.language_model import count_layers

    workspace = Workspace(study, False, no_progress)
    saes = []
    for name in explained_saes(study):
        explanations = explanations_of(study, name)
        chosen = rows_of(study.features(name), FEATURES)
        layer = explanations[0]["layer"]
        explained, _ = explained_features(explanations, chosen, workspace.settings.judge.language)
        entities = entity_profiles(study.contexts(name), name, layer)
        saes.append(SurveyedSae(name, layer, chosen, explained, entities))
    layers = count_layers(workspace.model_name, folder=study.folder)
    return survey(saes, workspace.concepts.names, layers)


def feature_map(study: Study, sae: str) -> list[dict[str, Any]]:
    """An SAE's chosen features in two dimensions by decoder direction.

    Kept in `landscape/<sae>.parquet`, and made anew where the SAE or its features have changed.
    Features that lie together write in similar directions; how far groups lie apart, and how wide
    they are, means nothing.

    Args:
        study: the study.
        sae: name of an SAE whose features were chosen.

    Returns:
        Rows of the table, by feature: sae, layer, feature, x, y, method, concept, concepts,
        explanation, discrimination and its interval.

    Raises:
        InputError: no feature of the SAE was chosen.
        CandidateError: the SAE cannot be loaded.
        StorageError: the table cannot be written.
    """
    from safesail.diagnosis import FEATURE_MAP, method_for, place_features
    from safesail.pipeline._results import load_results

    workspace = Workspace(study, False, no_progress)
    chosen = load_results(study, "features", sae).to_pylist()
    features = sorted({row["feature"] for row in chosen})
    fingerprint = next((c.fingerprint() for c in workspace.candidates if c.name == sae), None)
    settings = {"sae": fingerprint, "features": features}
    path = _map_path(study, sae)
    if path.exists() and read_configuration(path) == settings:
        known = {row["feature"]: row for row in read_table(path, FEATURE_MAP).to_pylist()}
        places = [(known[feature]["x"], known[feature]["y"]) for feature in features]
    else:
        directions = workspace.load_sae_alone(sae).decoder_directions[features]
        places = [(float(x), float(y)) for x, y in place_features(directions.float().numpy())]
    about = _about(study, sae, chosen)
    rows = [
        {
            "sae": sae,
            "layer": chosen[0]["layer"],
            "feature": feature,
            "x": x,
            "y": y,
            "method": method_for(len(features)),
            **about[feature],
        }
        for feature, (x, y) in zip(features, places, strict=True)
    ]
    write_table(path, table_from_rows(rows, FEATURE_MAP), FEATURE_MAP, settings)
    return rows


def _map_path(study: Study, sae: str) -> Path:
    return study.folder / "landscape" / f"{sae}.parquet"


def _about(study: Study, sae: str, chosen: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What is known of each chosen feature."""
    from safesail.diagnosis import best_concepts, explained_features, with_ancestors

    rows: dict[int, list[dict[str, Any]]] = {}
    for row in chosen:
        rows.setdefault(row["feature"], []).append(row)
    language = study.configuration.judge.language
    explained, _ = explained_features(explanations_of(study, sae), chosen, language)
    known = {one.feature: one for one in explained}
    found = {}
    for feature, mine in rows.items():
        one = known.get(feature)
        concepts = one.concepts if one else with_ancestors(best_concepts(mine))
        found[feature] = {
            "concept": concepts[0] if concepts else None,
            "concepts": list(concepts),
            "explanation": one.explanation if one else None,
            "discrimination": one.discrimination if one else None,
            "discrimination_low": one.discrimination_low if one else None,
            "discrimination_high": one.discrimination_high if one else None,
        }
    return found
