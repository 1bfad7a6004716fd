"""The stages `evaluate` and `inspect`: what an adapter does, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import AlignmentError, InputError
from safesail.pipeline._align import SUBSPACE_FOLDER
from safesail.pipeline._judging import judge_of
from safesail.pipeline._subspace import best_explanations, saes_of
from safesail.pipeline._workspace import Approve, Progress, Workspace, no_progress
from safesail.study import CorpusSource, Study

if TYPE_CHECKING:
    from safesail.alignment import AdapterReading, Evaluation, System

BASE = "base"


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

    With `judge.model` set in the study the judge grades; the refusal rules do in any case.

    Args:
        study: names the model and the judge.
        prompts: file with the columns `prompt` and `kind`; see `read_prompts`.
        adapters: folders of PEFT adapters, ours or others'.
        folder: where answers, figures and page are written.
        texts: file with held-out texts in the column `text`, for perplexity.
        budget: what the judge may cost, such as `5usd` or `2e6tokens`.
        batch_size: prompts at once.
        max_new_tokens: most tokens of an answer.
        progress: wraps an iterable with a label.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import evaluate, read_prompts, write_evaluation

    asked = read_prompts(prompts)
    judge = judge_of(study, budget=budget)
    names = _names(adapters)
    workspace = Workspace(study, False, no_progress)
    found = evaluate(
        asked,
        _systems(workspace, names, batch_size, max_new_tokens),
        judge=judge,
        texts=read_texts(texts) if texts else (),
        progress=progress,
    )
    configuration = {
        "model.name": study.configuration.model.name,
        "model": workspace.model.fingerprint,
        "adapters": list(names),
        "max_new_tokens": max_new_tokens,
    }
    against = BASE if len(names) else None
    write_evaluation(found, folder, against=against, configuration=configuration)
    return found


def inspect_in(
    study: Study,
    adapter: Path,
    *,
    saes: Sequence[str] = (),
    top: int = 10,
    approve: Approve | None = None,
) -> AdapterReading:
    """How much of what an adapter changes lies along which features of a study's SAEs.

    Args:
        study: names the model and its SAEs.
        adapter: folder of any plain LoRA adapter.
        saes: names of SAEs; by default those that have explanations.
        top: features to name a module and SAE.
        approve: is told what must be downloaded of published SAEs, and says whether it may be.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import FeatureDirections, Subspace, inspect_adapter
    from safesail.alignment._base import load_base

    workspace = Workspace(study, False, no_progress, approve)
    directions = []
    for name in saes_of(workspace, saes):
        texts = {f: text for f, (text, _) in best_explanations(workspace, name).items()}
        directions.append(FeatureDirections.of_sae(workspace.load_sae(name), texts))
    kept = adapter / SUBSPACE_FOLDER
    return inspect_adapter(
        adapter,
        load_base(workspace.model),
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
    workspace: Workspace, adapters: Mapping[str, Path], batch_size: int, max_new_tokens: int
) -> Iterator[System]:
    """The base, then each adapter on it, one in memory at a time."""
    from safesail.alignment import ModelAnswers, System
    from safesail.alignment._base import load_base
    from safesail.alignment._quiet import quiet

    tokenizer = workspace.model.tokenizer
    options: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    yield System(BASE, ModelAnswers(load_base(workspace.model), tokenizer, **options))
    for name, path in adapters.items():
        base = load_base(workspace.model)
        with quiet():
            model = _adapted(base, path)
        yield System(name, ModelAnswers(model.eval(), tokenizer, **options))


def _adapted(base: Any, folder: Path) -> Any:
    """A base with an adapter; ours must have been made on its weights."""
    from safesail.alignment import load_adapter
    from safesail.alignment._plan import import_peft
    from safesail.alignment._provenance import PROVENANCE_FILE

    if (folder / PROVENANCE_FILE).is_file():
        return load_adapter(base, folder)
    peft = import_peft()
    try:
        return peft.PeftModel.from_pretrained(base, str(folder))
    except Exception as error:  # PEFT, safetensors and torch raise classes of many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise AlignmentError(f"cannot load adapter {folder}: {reason}") from error


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
