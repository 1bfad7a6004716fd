"""The stage `align compare`: the SAE route against every control, trained and evaluated alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import InputError
from safesail.pipeline._judging import judge_of
from safesail.pipeline._subspace import (
    ROUTES,
    ContrastData,
    PooledLayer,
    SubspaceSettings,
    make_subspace,
    pool_layers,
)
from safesail.pipeline._workspace import Approve, Progress, Tell, Workspace, no_progress
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.alignment import Comparison, ComparisonSettings, Example, Subspace

METHODS: tuple[str, ...] = (*ROUTES, "lora", "full")


def compare_in(
    study: Study,
    methods: Sequence[str],
    contrast: ContrastData,
    examples: Sequence[Example],
    prompts: str | Path,
    folder: Path,
    *,
    saes: Sequence[str] = (),
    subspace: SubspaceSettings,
    comparison: ComparisonSettings,
    texts: str | None = None,
    budget: str | None = None,
    approve: Approve | None = None,
    progress: Progress = no_progress,
    tell: Tell = lambda line: None,
) -> Comparison:
    """Train every method alike over seeds and learning rates, evaluate all, and write one table.

    Args:
        study: names the model, its SAEs and the judge.
        methods: of METHODS.
        contrast: texts of both sides.
        examples: prompts and answers, benign ones among them.
        prompts: file of prompts to evaluate with.
        folder: where answers, figures and page are written.
        saes: names of SAEs; by default those that have explanations.
        subspace: how subspaces are found.
        comparison: how systems are trained.
        texts: file of held-out texts, for perplexity.
        budget: what the judge may cost.
        approve: says whether published SAEs may be downloaded.
        progress: wraps an iterable with a label.
        tell: is given warnings.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import compare, read_prompts, write_evaluation
    from safesail.alignment._base import load_base
    from safesail.pipeline._evaluate import read_texts

    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    asked = read_prompts(prompts)
    judge = judge_of(study, budget=budget)
    workspace = Workspace(study, False, no_progress, approve, tell)
    layers = pool_layers(workspace, saes, contrast, subspace)
    found = compare(
        lambda: load_base(workspace.model),
        workspace.model.tokenizer,
        {name: _beginning(workspace, layers, subspace, name) for name in methods},
        examples,
        asked,
        folder / ".work",
        comparison,
        judge=judge,
        texts=read_texts(texts) if texts else (),
        progress=progress,
    )
    configuration = {
        "model": workspace.model.fingerprint,
        "learning_rates": dict(found.learning_rates),
        "parameters": dict(found.parameters),
        "choosing_prompts": found.choosing_prompts,
        "rank": comparison.rank,
        "steps": comparison.options.steps,
        "seeds": list(comparison.seeds),
    }
    against = "lora" if "lora" in methods else methods[0]
    write_evaluation(found.evaluation, folder, against=against, configuration=configuration)
    return found


def _beginning(
    workspace: Workspace,
    layers: Sequence[PooledLayer],
    settings: SubspaceSettings,
    method: str,
) -> Callable[[int], Subspace | None]:
    """The subspace of a method, by seed; what does not depend on it is made once."""
    made: dict[int, Subspace] = {}
    drawn = method in ("random", "random_features", "shuffled_labels")

    def begin(seed: int) -> Subspace | None:
        if method not in ROUTES:
            return None
        key = seed if drawn else 0
        if key not in made:
            route: Any = method
            own = replace(settings, seed=1000 * key)
            made[key] = make_subspace(workspace, layers, own, route)
        return made[key]

    return begin
