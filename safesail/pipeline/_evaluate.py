"""The stages `evaluate` and `inspect`: what an adapter does, and what it is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safesail.errors import InputError, StorageError
from safesail.pipeline._explained import best_explanations, require_explained, saes_of
from safesail.pipeline._judging import judge_of
from safesail.pipeline._workspace import (
    Approve,
    Progress,
    Tell,
    Workspace,
    no_progress,
    tell_nothing,
)
from safesail.study import CorpusSource, Study

if TYPE_CHECKING:
    from safesail.alignment import AdapterReading, Evaluation
    from safesail.alignment._base import Base
    from safesail.alignment._kept import KeptAnswers

BASE = "base"
_STAGE = "evaluate"


def evaluate_in(
    study: Study,
    prompts: str | Path,
    adapters: Sequence[Path],
    folder: Path,
    *,
    texts: str | None = None,
    budget: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 256,
    progress: Progress = no_progress,
) -> Evaluation:
    """Have the base and adapters answer prompts, grade the answers, and write what was found.

    Answers are kept in `folder`/kept as they come; the same model, adapter and length of answers
    are not asked the same prompt again. With `judge.model` set in the study the judge grades; the
    refusal rules do in any case.

    Args:
        study: names the model and the judge.
        prompts: file with the columns `prompt` and `kind`; see `read_prompts`.
        adapters: folders of PEFT adapters, ours or others'.
        folder: where answers, figures and page are written; those of an earlier evaluation are
            replaced.
        texts: file with held-out texts in the column `text`, for perplexity.
        budget: what the judge may cost, such as `5usd` or `2e6tokens`.
        batch_size: prompts at once.
        max_new_tokens: most tokens of an answer.
        progress: wraps an iterable with a label.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import System, evaluate, read_prompts, write_evaluation
    from safesail.alignment._base import Base
    from safesail.alignment._prompts import check_unseen
    from safesail.alignment._report import check_same_stage

    check_same_stage(folder, _STAGE)
    asked = read_prompts(prompts)
    held_out = read_texts(texts) if texts else []
    judge = judge_of(study, budget=budget)
    names = _names(adapters)
    for name, path in names.items():
        check_unseen(asked, _trained_on(path), name)
    workspace = Workspace(study, False, no_progress)
    base = Base.of(workspace.model)
    workspace.release_model()
    systems = _systems(base, names, folder, batch_size, max_new_tokens)
    for name in progress(systems, "answering prompts"):
        # One model in memory at a time; what was answered before is not asked again.
        systems[name].complete([one.prompt for one in asked], held_out)
    found = evaluate(
        asked,
        [System(name, answers) for name, answers in systems.items()],
        judge=judge,
        texts=held_out,
        progress=progress,
    )
    settings = {
        "stage": _STAGE,
        "model.name": study.configuration.model.name,
        "model": base.fingerprint,
        "adapters": {name: str(path) for name, path in names.items()},
        "max_new_tokens": max_new_tokens,
    }
    against = BASE if len(names) else None
    write_evaluation(found, folder, against=against, settings=settings)
    return found


def inspect_in(
    study: Study,
    adapter: Path,
    *,
    saes: Sequence[str] = (),
    top: int = 10,
    approve: Approve | None = None,
    tell: Tell = tell_nothing,
) -> AdapterReading:
    """How much of what an adapter changes lies along which features of a study's SAEs.

    Args:
        study: names the model and its SAEs.
        adapter: folder of any plain LoRA adapter.
        saes: names of SAEs; by default those that have explanations.
        top: features to name a module and SAE.
        approve: is told what must be downloaded of published SAEs, and says whether it may be.
        tell: is given warnings.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import FeatureDirections, Subspace, inspect_adapter
    from safesail.alignment._base import Base
    from safesail.alignment._subspace import SUBSPACE_FOLDER

    workspace = Workspace(study, False, no_progress, approve, tell)
    directions = []
    for name in saes_of(workspace, saes):
        texts = {f: text for f, (text, _) in best_explanations(workspace, name).items()}
        sae = workspace.load_sae(name)
        require_explained(workspace, sae)
        for warning in sae.warnings:
            tell(f"{name}: {warning}")
        directions.append(FeatureDirections.of_sae(sae, texts))
    base = Base.of(workspace.model)
    workspace.release_model()
    kept = adapter / SUBSPACE_FOLDER
    return inspect_adapter(
        adapter,
        base.load(),
        directions,
        subspace=Subspace.load(kept) if kept.exists() else None,
        top=top,
    )


def _names(adapters: Sequence[Path]) -> Mapping[str, Path]:
    """Adapters by the names of their folders."""
    found: dict[str, Path] = {}
    for path in adapters:
        name = path.resolve().name
        if name in found or name == BASE:
            raise InputError(f"two systems would be called {name!r}: rename the folder {path}")
        if not (path / "adapter_config.json").is_file():
            raise InputError(f"{path} is no adapter of PEFT: it holds no adapter_config.json")
        found[name] = path
    return found


def _systems(
    base: Base, adapters: Mapping[str, Path], folder: Path, batch_size: int, max_new_tokens: int
) -> dict[str, KeptAnswers]:
    """The base and each adapter on it, loaded when its answers are missing."""
    from safesail.alignment import ModelAnswers, load_adapter
    from safesail.alignment._kept import KEPT, KeptAnswers
    from safesail.alignment._provenance import PROVENANCE_FILE
    from safesail.alignment._quiet import quiet
    from safesail.alignment._saving import load_foreign_adapter

    def answers_of(path: Path | None) -> ModelAnswers:
        model = base.load()
        if path is not None:
            ours = (path / PROVENANCE_FILE).is_file()
            with quiet():
                model = load_adapter(model, path) if ours else load_foreign_adapter(model, path)
        return ModelAnswers(
            model.eval(), base.tokenizer, batch_size=batch_size, max_new_tokens=max_new_tokens
        )

    common = {"model": base.digest, "dtype": base.dtype, "max_new_tokens": max_new_tokens}
    systems = {BASE: KeptAnswers(folder / KEPT, common, lambda: answers_of(None))}
    for name, path in adapters.items():
        key = {**common, "adapter": _digest_adapter(path)}
        systems[name] = KeptAnswers(folder / KEPT, key, partial(answers_of, path))
    return systems


def _trained_on(adapter: Path) -> frozenset[str]:
    """Digests of the prompts that an adapter learnt from, where it says so."""
    from safesail.alignment._provenance import PROVENANCE_FILE, Provenance

    if not (adapter / PROVENANCE_FILE).is_file():
        return frozenset()
    training = Provenance.read(adapter).training or {}
    return frozenset((*training.get("prompts", ()), *training.get("contrast_prompts", ())))


def _digest_adapter(folder: Path) -> str:
    """Changes with the adapter's weights and configuration."""
    found = hashlib.sha256()
    try:
        for path in sorted(folder.glob("adapter_*")):
            found.update(path.name.encode())
            found.update(path.read_bytes())
    except OSError as error:
        raise StorageError(f"could not read {error.filename}: {error.strerror}") from error
    return found.hexdigest()[:16]


def read_texts(path: str) -> list[str]:
    """Texts of the column `text` of a file.

    Raises:
        InputError: it has none.
    """
    from safesail.corpus import read_rows

    found = [
        row["text"]
        for _, row in read_rows(CorpusSource(path=path), Path(), ["text"])
        if isinstance(row.get("text"), str) and row["text"].strip()
    ]
    if not found:
        raise InputError(f"{path} holds no texts in a column `text`")
    return found
