"""A study's results as folders that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from safesail.errors import InputError, StorageError
from safesail.pipeline._corrected import corrections_of, corrections_table, with_corrections
from safesail.pipeline._results import load_results
from safesail.pipeline._workspace import rows_of
from safesail.study import Study
from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    read_contexts,
)
from safesail.tables.formats import (
    CardFacts,
    SaeTables,
    TableFile,
    card,
    last_part,
    write_dataset,
    write_delphi,
    write_neuronpedia,
    write_safe_sail,
)

FolderFormat = Literal["neuronpedia", "delphi", "safe-sail", "dataset"]


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        explanations: how many.
        saes: names of the SAEs.
    """

    folder: Path
    explanations: int
    saes: tuple[str, ...]


def export_folder(
    study: Study,
    format: FolderFormat,
    folder: Path | None = None,
    *,
    sae: str | None = None,
    language: str | None = None,
    model_id: str | None = None,
    set_name: str | None = None,
    licence: str | None = None,
) -> Exported:
    """Write the explanations, and what belongs to them, as another tool reads it.

    Args:
        study: the study.
        format: whose.
        folder: where; by default `exports/<format>` in the study. An earlier export there is
            replaced.
        sae: only this SAE; None for all that have explanations.
        language: only explanations in it; not for datasets.
        model_id: Neuronpedia's id of the model; by default made from its name.
        set_name: Neuronpedia's source set; by default `safesail-<sae>`.
        licence: identifier for a dataset's card, such as `mit`.

    Raises:
        InputError: there are no explanations, SAEs that the format does not tell apart, or the
            folder holds other things.
        StudyConflictError: a dataset of SAEs whose explanations other settings made.
        StorageError: a table cannot be read, or the folder not written.
    """
    folder = folder or study.folder / "exports" / format
    saes = sae_tables(study, sae, None if format == "dataset" else language)
    names = tuple(one.sae for one in saes)
    if format != "dataset":
        saes = [_corrected(study, one) for one in saes]
    if format == "dataset":
        load_results(study, "explanations", sae)  # refuses what must not lie in one table
        write_dataset(
            table_files(study, names),
            folder,
            partial(_card, study, saes, licence),
            corrections=corrections_table(study, names),
        )
        count = sum(len(one.explanations) for one in saes)
    elif format == "neuronpedia":
        model = model_name(study)
        count = write_neuronpedia(saes, folder, model=model, model_id=model_id, set_name=set_name)
    elif format == "delphi":
        count = write_delphi(saes, folder, language=language)
    else:
        count = write_safe_sail(saes, folder)
    return Exported(folder, count, names)


def sae_tables(
    study: Study, sae: str | None = None, language: str | None = None
) -> list[SaeTables]:
    """What a study holds of each SAE that has explanations.

    Raises:
        InputError: there are none.
        StorageError: a table cannot be read.
    """
    ranked = {row["sae"]: row for row in rows_of(study.rankings, RANKINGS)}
    found = []
    for path in sorted((study.folder / "explanations").glob("*.parquet")):
        rows = [r for r in rows_of(path, EXPLANATIONS) if language in (None, r["language"])]
        if rows and sae in (None, path.stem):
            found.append(_tables(study, path.stem, rows, ranked.get(path.stem, {})))
    if not found:
        of = f" of SAE {sae!r}" if sae else ""
        tongue = f" in language {language!r}" if language else ""
        raise InputError(
            f"no explanations{of}{tongue} in {study.folder}: run `safesail explain` first"
        )
    return found


def _corrected(study: Study, sae: SaeTables) -> SaeTables:
    rows = with_corrections(sae.explanations, corrections_of(study, [sae.sae]))
    return replace(sae, explanations=rows)


def _tables(
    study: Study, sae: str, rows: list[dict[str, Any]], ranking: Mapping[str, Any]
) -> SaeTables:
    source = ranking.get("source")
    return SaeTables(
        sae=sae,
        layer=rows[0]["layer"],
        hook_point=ranking.get("hook_point"),
        explanations=rows,
        features=rows_of(study.features(sae), FEATURES),
        contexts=partial(read_contexts, study.contexts(sae)),
        # Of a local SAE the source is a folder.
        published=source if source and last_part(source) == source and ":" in source else None,
    )


def table_files(study: Study, saes: tuple[str, ...]) -> list[TableFile]:
    """The files of a study's tables that belong to some SAEs, and where they go."""
    files = [TableFile(RANKINGS, study.rankings, "rankings.parquet")]
    for sae in saes:
        files += [
            TableFile(FEATURES, study.features(sae), f"features/{sae}.parquet"),
            *(
                TableFile(CONTEXTS, shard, f"contexts/{sae}/{shard.name}")
                for shard in sorted(study.contexts(sae).glob("part-*.parquet"))
            ),
            TableFile(EXPLANATIONS, study.explanations(sae), f"explanations/{sae}.parquet"),
        ]
    return [file for file in files if file.path.exists()]


def model_name(study: Study) -> str:
    """The model's name; of a local one the name of its folder."""
    return last_part(study.configuration.model.name)


def _card(study: Study, saes: list[SaeTables], licence: str | None, rows: Mapping[str, int]) -> str:
    return study_card(study, saes, licence, rows, above="data/")


def study_card(
    study: Study,
    saes: list[SaeTables],
    licence: str | None,
    rows: Mapping[str, int],
    *,
    above: str = "",
    included: tuple[str, ...] = (),
) -> str:
    """The card of a folder with a study's tables.

    Args:
        study: the study.
        saes: the SAEs whose tables the folder has.
        licence: identifier of its licence.
        rows: rows, by name of the table.
        above: folder of the tables, with its slash.
        included: what lies in the folder beside the tables.
    """
    patterns = {
        "explanations": "explanations/*.parquet",
        "features": "features/*.parquet",
        "contexts": "contexts/**/*.parquet",
        "rankings": "rankings.parquet",
        "corrections": "corrections.parquet",
    }
    corpus = study.configuration.corpus
    names = [source.hub or last_part(source.path or "") for source in corpus.sources]
    return card(
        CardFacts(
            title=study.folder.name,
            model=model_name(study),
            saes=saes,
            rows=rows,
            files={name: above + patterns[name] for name in patterns if name in rows},
            corpus=[*names, *(["the concepts' own texts"] if corpus.concept_texts else [])],
            tokens=max(
                (row["tokens_seen"] or 0 for one in saes for row in one.features), default=0
            ),
            licence=licence,
            included=included,
        )
    )


def push_dataset(folder: Path, name: str) -> str:
    """Upload a folder to the Hugging Face hub as a dataset, private where it is new.

    The library takes the token from the environment or from its own login.

    Args:
        folder: with a card.
        name: `owner/dataset`.

    Returns:
        The dataset's address.

    Raises:
        StorageError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    hub = HfApi()
    try:
        url = hub.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder)
    except Exception as error:
        # The library has moved from one HTTP library to another, whose errors it lets through.
        from_http = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore")
        known = (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError)
        if not from_http and not isinstance(error, known):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StorageError(
            f"could not upload {folder} to {name!r} ({reason}): log in with `hf auth login` or "
            "set HF_TOKEN, and check the name and the connection"
        ) from error
    return str(url)
