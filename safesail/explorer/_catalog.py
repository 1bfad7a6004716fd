"""A study's small tables in DuckDB: one row per feature, with its best explanation."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from safesail.errors import ConfigurationError, StudyConflictError
from safesail.explorer._corrections import (
    Correction,
    corrections_file,
    latest_corrections,
    read_corrections,
)
from safesail.study import Study, require_same
from safesail.tables import (
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    TableSchema,
    read_configuration,
    read_table,
)

if TYPE_CHECKING:
    import duckdb

# A feature's best explanation, as `tables.explanation_rank` has it.
RANK = r"""NOT regexp_matches(coalesce(explanation, ''), '\S') OR coalesce(masked, false),
  list_position(['judge', 'imported', 'lexical'], explainer), language = $language DESC,
  language = 'en' DESC, coalesce(isfinite(discrimination) OR isfinite(correlation),
  isfinite(discrimination), isfinite(correlation), false) DESC, created_at DESC"""
_BEST = f"""
CREATE TABLE best AS SELECT * FROM explanations
QUALIFY row_number() OVER (PARTITION BY sae, feature ORDER BY {RANK}) = 1
"""
_FACTS = """
CREATE TABLE facts AS SELECT sae, feature, any_value(layer) AS layer,
  arg_max(concept, (separation, len(string_split(concept, '/')), concept)) FILTER (called)
    AS called_for,
  bool_or(concept IS NOT NULL) AS chosen,
  max(separation) AS separation, max(specificity) AS specificity, bool_or(called) AS called,
  any_value(density) AS density, any_value(max_activation) AS max_activation,
  any_value(status) AS collected
FROM features GROUP BY sae, feature
"""
# A person's concepts go before the judge's, and those before the one that it was called for and
# separates best, as in `safesail diagnose`.
_CATALOG = """
CREATE TABLE catalog AS SELECT row_number() OVER (ORDER BY sae, feature) - 1 AS id, sae, feature,
  coalesce(f.layer, b.layer) AS layer,
  coalesce(c.concepts, b.judge_concepts, CASE WHEN f.called_for IS NOT NULL THEN [f.called_for]
    WHEN f.chosen THEN [] ELSE b.concepts END, []) AS concepts,
  coalesce(c.explanation, b.explanation) AS explanation,
  c.explanation_by AS corrected_by, c.concepts IS NOT NULL AS concepts_corrected,
  b.explanation AS original, b.language, b.explainer, b.source,
  coalesce(b.judge_model, '') AS judge_model,
  b.correlation, b.correlation_low, b.correlation_high,
  b.discrimination, b.discrimination_low, b.discrimination_high, b.observations,
  coalesce(b.status, f.collected) AS status,
  f.separation, f.specificity, coalesce(f.called, false) AS called, f.density, f.max_activation
FROM (SELECT sae, feature FROM facts UNION SELECT sae, feature FROM best) AS known
LEFT JOIN facts AS f USING (sae, feature) LEFT JOIN best AS b USING (sae, feature)
LEFT JOIN (
  SELECT sae, feature, any_value(c.concepts) AS concepts, any_value(c.explanation) AS explanation,
    any_value(c.explanation_by) AS explanation_by
  FROM corrected AS c LEFT JOIN best AS b USING (sae, feature)
  WHERE c.language = '' OR (c.language = coalesce(b.language, c.language)
    AND c.original IS NOT DISTINCT FROM b.explanation)
  GROUP BY sae, feature
) AS c USING (sae, feature)
"""
_CONCEPTS = "CREATE TABLE of_concept AS SELECT id, unnest(concepts) AS concept FROM catalog"
_CORRECTED = pa.schema(
    {
        "sae": pa.string(),
        "feature": pa.int64(),
        "language": pa.string(),
        "concepts": pa.list_(pa.string()),
        "explanation": pa.string(),
        "explanation_by": pa.string(),
        "original": pa.string(),
    }
)


class Catalog:
    """A study's tables as they were when it was made; read by many threads at once.

    Attributes:
        signature: what tells the files apart from changed ones.
        numbers: by SAE and feature, its row in the table `catalog`.
        warnings: what a reader should know of the tables.
        corrections: what people corrected.
        language: of the study's explanations, which is preferred.
    """

    def __init__(self, study: Study) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise ConfigurationError(
                "duckdb is not installed: run `pip install 'safesail[explorer]'`"
            ) from error
        self.signature = signature(study)
        # Nothing here may reach a file or the network: the tables come as Arrow.
        self._database = duckdb.connect(
            ":memory:", config={"enable_external_access": False, "lock_configuration": True}
        )
        self._local = threading.local()
        paths = {name: sorted((study.folder / name).glob("*.parquet")) for name in _SCHEMAS}
        for name, schema in _SCHEMAS.items():
            self._load(name, _joined(paths[name], schema))
        rankings = [study.rankings] if study.rankings.exists() else []
        self._load("rankings", _joined(rankings, RANKINGS))
        self.corrections = read_corrections(study)
        self._load("corrected", _latest(self.corrections))
        self.language = study.configuration.judge.language
        self._database.execute(_BEST, {"language": self.language})
        for statement in (_FACTS, _CATALOG, _CONCEPTS):
            self._database.execute(statement)
        rows = self.rows("SELECT id, sae, feature FROM catalog")
        self.numbers = {(row["sae"], row["feature"]): row["id"] for row in rows}
        self.warnings = [w for name in _SCHEMAS for w in _mixed(paths[name])]

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a query; everything that varies in it is a parameter."""
        cursor = self._cursor()
        cursor.execute(query, dict(values or {}))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's own: DuckDB's connections are not shared by threads."""
        if not hasattr(self._local, "cursor"):
            self._local.cursor = self._database.cursor()
        cursor: duckdb.DuckDBPyConnection = self._local.cursor
        return cursor

    def _load(self, name: str, table: pa.Table) -> None:
        self._database.register("arriving", table)
        # The name is one of this module's.
        self._database.execute(f"CREATE TABLE {name} AS SELECT * FROM arriving")
        self._database.unregister("arriving")


_SCHEMAS = {"features": FEATURES, "explanations": EXPLANATIONS}


def signature(study: Study) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that a catalog is made from."""
    return files_signature(
        study,
        [
            study.rankings,
            corrections_file(study),
            *(path for name in _SCHEMAS for path in (study.folder / name).glob("*.parquet")),
        ],
    )


def files_signature(study: Study, paths: list[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of those files that are there."""
    found = []
    for path in sorted(paths):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        name = path.relative_to(study.folder).as_posix()
        found.append((name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _joined(paths: list[Path], schema: TableSchema) -> pa.Table:
    tables = [read_table(path, schema).replace_schema_metadata(None) for path in paths]
    joined = pa.concat_tables(tables) if tables else schema.arrow().empty_table()
    # DuckDB needs another library for times with a zone; without one they are UTC all the same.
    fields = [
        field.with_type(pa.timestamp("s")) if pa.types.is_timestamp(field.type) else field
        for field in joined.schema
    ]
    return joined.cast(pa.schema(fields))


def _latest(corrections: list[Correction]) -> pa.Table:
    """The corrections that hold: of each feature, field and language the last one."""
    rows = [
        {
            "sae": c.sae,
            "feature": c.feature,
            "language": c.language,
            "concepts": c.value if c.field == "concepts" else None,
            "explanation": c.value if c.field == "explanation" else None,
            "explanation_by": c.author if c.field == "explanation" else None,
            "original": original if c.field == "explanation" else None,
        }
        for c, original in latest_corrections(corrections)
    ]
    return pa.Table.from_pylist(rows, schema=_CORRECTED)


def _mixed(paths: list[Path]) -> list[str]:
    """A warning where results of different settings stand side by side."""
    making: dict[str, Any] | None = None
    for path in paths:
        settings = {k: v for k, v in (read_configuration(path) or {}).items() if k != "sae"}
        if making is not None:
            try:
                require_same(making, settings, path)
            except StudyConflictError:
                return [
                    f"{path.parent.name} of several SAEs were made with different settings: "
                    f"{path.stem} differs from {paths[0].stem}. Compare them with care."
                ]
        making = settings
    return []
