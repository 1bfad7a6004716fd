"""The tables in the formats of other tools, and back: docs/formats.md says what each carries."""

from safesail.tables.formats._card import CardFacts, card
from safesail.tables.formats._copies import (
    TableFile,
    copy_tables,
    last_part,
    without_paths,
    without_secrets,
)
from safesail.tables.formats._dataset import CARD, write_dataset
from safesail.tables.formats._delphi import DELPHI_CARRIED, read_delphi, write_delphi
from safesail.tables.formats._folder import write_file, written_folder
from safesail.tables.formats._neuronpedia import NEURONPEDIA_CARRIED, write_neuronpedia
from safesail.tables.formats._neuronpedia_reading import read_neuronpedia
from safesail.tables.formats._rows import Row, SaeTables, best_of_each
from safesail.tables.formats._safe_sail import SAFE_SAIL_CARRIED, read_safe_sail, write_safe_sail

__all__ = [
    "CARD",
    "DELPHI_CARRIED",
    "NEURONPEDIA_CARRIED",
    "SAFE_SAIL_CARRIED",
    "CardFacts",
    "Row",
    "SaeTables",
    "TableFile",
    "best_of_each",
    "card",
    "copy_tables",
    "last_part",
    "read_delphi",
    "read_neuronpedia",
    "read_safe_sail",
    "without_paths",
    "without_secrets",
    "write_dataset",
    "write_delphi",
    "write_file",
    "write_neuronpedia",
    "write_safe_sail",
    "written_folder",
]
