"""A study: a folder with `safesail.toml`, its settings, and where its results lie."""

from safesail.study._configuration import Configuration
from safesail.study._settings import (
    CandidateSettings,
    CollectionSettings,
    ConceptSettings,
    CorpusSettings,
    CorpusSource,
    JudgeSettings,
    ModelSettings,
    RankingSettings,
    language_tag,
)
from safesail.study._study import CONFIGURATION_FILE, Study, require_same

__all__ = [
    "CONFIGURATION_FILE",
    "CandidateSettings",
    "CollectionSettings",
    "ConceptSettings",
    "Configuration",
    "CorpusSettings",
    "CorpusSource",
    "JudgeSettings",
    "ModelSettings",
    "RankingSettings",
    "Study",
    "language_tag",
    "require_same",
]
