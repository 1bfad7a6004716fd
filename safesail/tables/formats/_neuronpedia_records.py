"""Neuronpedia's records of features and what is known of them, one function a table.

Keys are those of Neuronpedia's bulk files: its importer takes the columns from the first line of
a file, so every line of a kind has the same ones. Values are null or empty where a study does not
know them.
"""

from __future__ import annotations

from itertools import pairwise

from safesail.tables._records import Context
from safesail.tables.formats._neuronpedia_sources import BY, CREATOR, Place, Record
from safesail.tables.formats._rows import Row, Score, foreign_scores, own_scores
from safesail.tables.formats._text import number, plain, short_floats, to_json

OWN_SCORE = "safesail_"
"""Before the name of a score of safesail, in the name of its type."""

_UNKNOWN = "unknown"


def feature_record(place: Place, feature: int, row: Row | None, hook_point: str | None) -> Record:
    """A row of Neuron; `row` is the feature's of the features table, if it has one."""
    known = row or {}
    edges = known.get("histogram_edges") or []
    return {
        "modelId": place.model,
        "layer": place.source,
        "index": str(feature),
        "creatorId": CREATOR,
        "createdAt": place.moment,
        "maxActApprox": number(known.get("max_activation")),
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "vectorDefaultSteerStrength": None,
        "hookName": hook_point,
        "topkCosSimIndices": known.get("nearest_features") or [],
        "topkCosSimValues": [],
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [],
        "correlated_features_pearson": [],
        "correlated_features_l1": [],
        "neg_str": known.get("bottom_logits") or [],
        "neg_values": [],
        "pos_str": known.get("top_logits") or [],
        "pos_values": [],
        "frac_nonzero": number(known.get("density")) or 0.0,
        "freq_hist_data_bar_heights": known.get("histogram_counts") or [],
        "freq_hist_data_bar_values": [(low + high) / 2 for low, high in pairwise(edges)],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "decoder_weights_dist": [],
        "sourceSetName": place.set,
    }


def activation_record(place: Place, context: Context) -> Record:
    """A row of Activation."""
    values = short_floats(context.activations)
    return {
        "id": place.id("activation", context.feature, context.document, context.start),
        "tokens": context.tokens,
        "index": str(context.feature),
        "layer": place.source,
        "modelId": place.model,
        "maxValue": max(values, default=0.0),
        "maxValueTokenIndex": context.peak_at,
        "minValue": min(values, default=0.0),
        "values": values,
        "creatorId": CREATOR,
        "dataSource": None,
        "dataIndex": f"{context.document}:{context.start}",
        "dfaValues": [],
        "dfaTargetIndex": None,
        "dfaMaxValue": None,
        "createdAt": place.moment,
        "lossValues": [],
        "logitContributions": None,
        "binMin": None,
        "binMax": None,
        "binContains": None,
        "qualifyingTokenIndex": None,
        "zIndices": [],
        "zValues": [],
    }


def explanation_record(place: Place, row: Row, id: str) -> Record:
    """A row of Explanation; what safesail knows beyond its columns stands in `notes`, as JSON."""
    notes = {key: row[key] for key in ("language", "concepts", "tags", "source")}
    return {
        "id": id,
        "modelId": place.model,
        "layer": place.source,
        "index": str(row["feature"]),
        "description": row["explanation"],
        "authorId": CREATOR,
        "embedding": None,
        "triggeredById": None,
        "typeName": explanation_type(row),
        "explanationModelName": row["explained_by"],
        "notes": to_json(notes),
        "createdAt": plain(row["created_at"]),
    }


def explanation_type(row: Row) -> str:
    """Name of how a row's explanation came about."""
    return f"{BY}_{row['explainer']}"


def score_records(place: Place, row: Row, explanation: str) -> list[Record]:
    """Rows of ExplanationScore: the scores in a row's columns, and those it was imported with."""
    own: list[Score] = [
        {
            "type": OWN_SCORE + found.name,
            "model": row["judge_model"],
            "value": found.value,
            "details": to_json(
                {
                    **found.details,
                    "judge": row["judge_model"],
                    "prompt_version": row["prompt_version"],
                }
            ),
        }
        for found in own_scores(row)
    ]
    # Of a score without a value the table has no room.
    foreign = [found for found in foreign_scores(row) if found["value"] is not None]
    return [
        {
            "id": place.id("score", explanation, at, found["type"]),
            "initiatedByUserId": CREATOR,
            "value": found["value"],
            "explanationId": explanation,
            "explanationScoreTypeName": found["type"],
            "explanationScoreModelName": found["model"] or _UNKNOWN,
            "jsonDetails": found["details"],
            "createdAt": plain(row["created_at"]),
        }
        for at, found in enumerate([*own, *foreign])
    ]


def model_of_score(name: str | None) -> str | None:
    """The model of a score as `score_records` names it, None where none was known."""
    return None if name == _UNKNOWN else name
