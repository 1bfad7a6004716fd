"""Reading and writing the lab's text files: corpus, held-out clauses, contrast pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from safesail.lab.documents import Clause, ContrastPair, Document
from safesail.lab.lexicon import Lexicon

CORPUS_SCHEMA = pa.schema([("document", pa.string()), ("text", pa.string())])
_CLAUSE = pa.struct(
    [("start", pa.int32()), ("end", pa.int32()), ("concept", pa.string()), ("kind", pa.string())]
)
HELDOUT_SCHEMA = CORPUS_SCHEMA.append(pa.field("clauses", pa.list_(_CLAUSE)))


def write_documents(documents: Sequence[Document], path: Path, *, labels: bool) -> None:
    """Writes documents as zstd Parquet; with `labels`, their clauses too (held-out text)."""
    rows = []
    for document in documents:
        row: dict[str, object] = {"document": document.name, "text": document.text}
        if labels:
            row["clauses"] = [
                {"start": c.start, "end": c.end, "concept": c.concept, "kind": c.kind}
                for c in document.clauses
            ]
        rows.append(row)
    schema = HELDOUT_SCHEMA if labels else CORPUS_SCHEMA
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")


def read_heldout(path: Path) -> list[Document]:
    """The labelled documents of a held-out file."""
    return [
        Document(row["document"], row["text"], tuple(Clause(**c) for c in row["clauses"]))
        for row in pq.read_table(path, schema=HELDOUT_SCHEMA).to_pylist()
    ]


def write_pairs(pairs: Iterable[ContrastPair], path: Path) -> None:
    """Writes contrast pairs as JSONL with keys concept, positive, negative."""
    lines = [
        json.dumps({"concept": p.concept, "positive": p.positive, "negative": p.negative})
        for p in pairs
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_pairs(path: Path) -> list[ContrastPair]:
    """The contrast pairs of a JSONL file that `write_pairs` wrote."""
    return [ContrastPair(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def write_vocabulary(lexicon: Lexicon, path: Path) -> None:
    """Writes, per concept, its trigger words, its concept words, and its children's own."""
    table = {
        name: {
            "triggers": concept.trigger_words(),
            "concept_words": concept.concept_words(),
            "children": {
                child_name: {
                    "triggers": sorted(child.triggers),
                    "concept_words": sorted({*child.targets, *child.aftermath_objects}),
                }
                for child_name, child in concept.children.items()
            },
        }
        for name, concept in lexicon.concepts.items()
    }
    path.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
