"""Print every table's columns as Markdown: `python -m safesail.tables > docs/tables.md`."""

import sys

from safesail.tables import describe_tables

sys.stdout.write(describe_tables())
