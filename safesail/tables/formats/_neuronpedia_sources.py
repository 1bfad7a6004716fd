"""Neuronpedia's records of where features belong: release, model, source set, source, names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from safesail.tables.formats._text import to_json

Record = dict[str, Any]

CREATOR = "clkht01d40000jv08hvalcvly"
"""The account that a fresh Neuronpedia makes for what is uploaded, and its converters use."""

BY = "safesail"
"""Who made what is exported."""

_VISIBILITY = "PUBLIC"
_NEVER = "1970-01-01T00:00:00+00:00"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 25


@dataclass(frozen=True)
class Place:
    """Where records belong.

    Attributes:
        model: Neuronpedia's id of the model.
        set: name of the source set.
        source: id of the source, `<layer>-<set>`.
        created_at: of what has no moment of its own.
    """

    model: str
    set: str
    source: str
    created_at: datetime | None

    @property
    def release(self) -> str:
        """Name of the release."""
        return f"{BY}-{self.model}-{self.set}"

    @property
    def moment(self) -> str:
        """ISO 8601 of `created_at`."""
        return self.created_at.isoformat() if self.created_at else _NEVER

    def id(self, kind: str, *parts: Any) -> str:
        """An id that looks like a cuid and is the same in every export."""
        content = to_json([kind, self.model, self.source, *parts])
        value = int.from_bytes(hashlib.sha256(content.encode()).digest())
        letters = []
        for _ in range(_ID_LENGTH - 1):
            value, digit = divmod(value, len(_DIGITS))
            letters.append(_DIGITS[digit])
        return "c" + "".join(letters)


def release_record(place: Place, description: str) -> Record:
    """A row of SourceRelease."""
    return {
        "name": place.release,
        "visibility": _VISIBILITY,
        "isNewUi": True,
        "featured": False,
        "description": description,
        "descriptionShort": None,
        "urls": [],
        "creatorEmail": None,
        "creatorName": BY,
        "creatorNameShort": None,
        "creatorId": CREATOR,
        "defaultSourceSetName": place.set,
        "defaultSourceId": place.source,
        "defaultUmapSourceIds": [],
        "createdAt": place.moment,
    }


def model_record(place: Place, name: str) -> Record:
    """A row of Model; its numbers of layers and neurons, which a study lacks, are 0."""
    owner, _, short = name.rpartition("/")
    return {
        "id": place.model,
        "displayNameShort": short,
        "displayName": short,
        "creatorId": CREATOR,
        "tlensId": None,
        "dimension": None,
        "visibility": _VISIBILITY,
        "defaultSourceSetName": None,
        "defaultSourceId": None,
        "inferenceEnabled": False,
        "instruct": False,
        "layers": 0,
        "neuronsPerLayer": 0,
        "createdAt": place.moment,
        "owner": owner or "unknown",
        "updatedAt": place.moment,
        "website": None,
    }


def sourceset_record(place: Place, description: str) -> Record:
    """A row of SourceSet."""
    return {
        "modelId": place.model,
        "name": place.set,
        "hasDashboards": True,
        "allowInferenceSearch": False,
        "visibility": _VISIBILITY,
        "description": description,
        "type": "",
        "creatorName": BY,
        "urls": [],
        "creatorEmail": None,
        "creatorId": CREATOR,
        "releaseName": place.release,
        "defaultOfModelId": None,
        "defaultRange": 1,
        "defaultShowBreaks": True,
        "showDfa": False,
        "showCorrelated": False,
        "showHeadAttribution": False,
        "showUmap": False,
        "createdAt": place.moment,
    }


def source_record(place: Place, saelens: tuple[str, str] | None) -> Record:
    """A row of Source; `saelens` is release and id of a published SAE."""
    release, sae_id = saelens or (None, None)
    return {
        "id": place.source,
        "modelId": place.model,
        "hasDashboards": True,
        "inferenceEnabled": False,
        "saelensConfig": None,
        "saelensRelease": release,
        "saelensSaeId": sae_id,
        "hfRepoId": None,
        "hfFolderId": None,
        "visibility": _VISIBILITY,
        "defaultOfModelId": None,
        "setName": place.set,
        "creatorId": CREATOR,
        "hasUmap": False,
        "hasUmapLogSparsity": False,
        "hasUmapClusters": False,
        "num_prompts": None,
        "num_tokens_in_prompt": None,
        "dataset": None,
        "notes": None,
        "createdAt": place.moment,
    }


def type_records(names: Iterable[str], place: Place, meaning: str) -> list[Record]:
    """Rows of the tables that give names of explanations, models and scores a description."""
    return [
        {
            "name": name,
            "displayName": name,
            "description": meaning,
            "featured": False,
            "url": None,
            "creatorName": BY,
            "createdAt": place.moment,
            "updatedAt": place.moment,
        }
        for name in sorted(set(names))
    ]


def with_creator(records: Iterable[Record]) -> list[Record]:
    """The same, for tables that keep who made a name."""
    return [{**record, "creatorId": CREATOR, "isAttention": False} for record in records]
