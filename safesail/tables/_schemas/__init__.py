"""Columns of every result table: name, type, meaning, layout. The one place that defines them."""

from safesail.tables._schemas._answers import ANSWERS
from safesail.tables._schemas._columns import Column, TableSchema
from safesail.tables._schemas._contexts import CONTEXTS
from safesail.tables._schemas._corrections import CORRECTIONS
from safesail.tables._schemas._explanations import EXPLANATIONS
from safesail.tables._schemas._features import FEATURES
from safesail.tables._schemas._rankings import RANKINGS
from safesail.tables._schemas._training import TRAINING

SCHEMAS = {
    schema.name: schema
    for schema in (TRAINING, RANKINGS, FEATURES, CONTEXTS, EXPLANATIONS, CORRECTIONS, ANSWERS)
}

__all__ = [
    "ANSWERS",
    "CONTEXTS",
    "CORRECTIONS",
    "EXPLANATIONS",
    "FEATURES",
    "RANKINGS",
    "SCHEMAS",
    "TRAINING",
    "Column",
    "TableSchema",
]
