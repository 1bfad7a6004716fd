"""Pages over a study's tables: `safesail report` and `safesail serve`."""

from safesail.explorer._corrections import (
    Correction,
    corrections_file,
    latest_corrections,
    read_corrections,
)
from safesail.explorer._explorer import Explorer
from safesail.explorer._report import Report, write_report
from safesail.explorer._serve import serve

__all__ = [
    "Correction",
    "Explorer",
    "Report",
    "corrections_file",
    "latest_corrections",
    "read_corrections",
    "serve",
    "write_report",
]
