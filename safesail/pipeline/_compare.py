"""The stage `align compare`: the SAE route against every control, trained and evaluated alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._names import ROUTES
from safesail.errors import InputError
from safesail.pipeline._evaluate import read_texts
from safesail.pipeline._explained import features_of
from safesail.pipeline._judging import judge_of
from safesail.pipeline._lock import alone
from safesail.pipeline._subspace import (
    ContrastData,
    PooledLayer,
    SubspaceSettings,
    make_subspace,
    pool_layers,
)
from safesail.pipeline._workspace import (
    Approve,
    Progress,
    Tell,
    Workspace,
    no_progress,
    tell_nothing,
)
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.alignment import Beginning, Comparison, ComparisonSettings, Example, Subspace

METHODS: tuple[str, ...] = (*ROUTES, "lora", "full")
_STAGE = "align compare"
_DRAWN = ("random", "random_features", "shuffled_labels")


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
    tell: Tell = tell_nothing,
) -> Comparison:
    """Train every method alike over seeds and learning rates, evaluate all, and write one table.

    What was trained and answered is kept in `folder`; see `safesail.alignment.compare`.

    Args:
        study: names the model, its SAEs and the judge.
        methods: of METHODS.
        contrast: texts of both sides.
        examples: prompts and answers, benign ones among them.
        prompts: file of prompts to evaluate with.
        folder: where answers, figures and page are written; those of an earlier comparison are
            replaced.
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
    from safesail.alignment import (
        check_comparison,
        compare,
        encode_examples,
        read_prompts,
        write_evaluation,
    )
    from safesail.alignment._base import Base
    from safesail.alignment._prompts import check_unseen, prompt_digest
    from safesail.alignment._report import check_same_stage

    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    check_same_stage(folder, _STAGE)
    asked = read_prompts(prompts)
    check_comparison(methods, examples, asked, comparison)
    check_unseen(asked, contrast.prompt_digests(), "the contrast, which chooses the subspace,")
    held_out = read_texts(texts) if texts else []
    judge = judge_of(study, budget=budget)
    workspace = Workspace(study, False, no_progress, approve, tell)
    base = Base.of(workspace.model)
    most = min(comparison.options.max_tokens, workspace.model.context_size)
    encoded = encode_examples(examples, base.tokenizer, max_tokens=most)
    if encoded.cut or encoded.left_out:
        tell(
            f"{encoded.cut} of {len(examples)} answers lose their end and {encoded.left_out} "
            f"prompts leave no room for one within {most} tokens: allow more with --max-tokens"
        )
    base.check_adaptable(comparison.modules)
    layers: list[PooledLayer] = []
    if set(methods) & set(ROUTES):
        layers = pool_layers(
            workspace, saes, contrast, subspace, modules=comparison.modules, advise=False
        )
    workspace.release_model()
    key = _key(contrast, layers, subspace)
    trainings = len(methods) * len(comparison.learning_rates) * len(comparison.seeds)
    tell(f"{trainings} trainings; what was trained and answered before is not done again")
    with alone(folder):
        found = compare(
            base.load,
            base.tokenizer,
            {name: _beginning(workspace, layers, subspace, name, key, tell) for name in methods},
            examples,
            asked,
            folder,
            comparison,
            model={"model": base.digest, "dtype": base.dtype},
            about={
                "prompts": sorted({prompt_digest(one.prompt) for one in examples}),
                "contrast_prompts": sorted(contrast.prompt_digests()),
            },
            judge=judge,
            texts=held_out,
            progress=progress,
        )
    for method, rates in found.diverged.items():
        if method not in found.learning_rates:
            tell(f"{method}: its loss did not stay finite at any learning rate; it is in no table")
        else:
            told = ", ".join(f"{rate:g}" for rate in rates)
            tell(f"{method}: its loss did not stay finite at a learning rate of {told}")
    settings = {
        "stage": _STAGE,
        "model.name": study.configuration.model.name,
        "model": base.fingerprint,
        "learning_rates": dict(found.learning_rates),
        "diverged": {method: list(rates) for method, rates in found.diverged.items()},
        "parameters": dict(found.parameters),
        "directions": {method: list(own) for method, own in found.directions.items()},
        "choosing_prompts": len(found.choosing.prompts) if found.choosing else 0,
        "rank": comparison.rank,
        "modules": list(comparison.modules),
        "seeds": list(comparison.seeds),
        "max_new_tokens": comparison.max_new_tokens,
        "training": asdict(comparison.options),
        "examples": len(examples),
        **key,
    }
    write_evaluation(
        found.evaluation,
        folder,
        against=found.against,
        settings=settings,
        notes=comparison_notes(found, comparison),
    )
    return found


def comparison_notes(found: Comparison, settings: ComparisonSettings) -> list[str]:
    """How the systems of a comparison were trained, a line each."""
    options = settings.options
    lines = [
        f"rank {settings.rank} on {', '.join(settings.modules)}; {options.steps} steps of "
        f"{options.batch_size * options.accumulate} examples; seeds "
        f"{', '.join(map(str, settings.seeds))}; first factors of equal length, modules without a "
        "basis take the nearest one",
    ]
    lines += [
        f"{method}: learning rate {rate:g}, {found.parameters[method]:,} parameters trained"
        for method, rate in found.learning_rates.items()
    ]
    lines += [
        f"{method}: its loss did not stay finite at {', '.join(f'{rate:g}' for rate in rates)}"
        for method, rates in found.diverged.items()
    ]
    for method, own in found.directions.items():
        if min(own) < settings.rank:
            told = ", ".join(map(str, sorted(set(own))))
            lines.append(
                f"{method}: {told} of {settings.rank} directions are its own, the others random"
            )
    if len(found.learning_rates) > 2:
        lines.append(
            "intervals are of one comparison each: of twenty that know no difference about one "
            "leaves 0 out"
        )
    if found.choosing is not None:
        grader = found.choosing.graders[0]
        lines.append(
            f"rates were chosen among {', '.join(f'{r:g}' for r in settings.learning_rates)} (of "
            f"full fine-tuning a tenth) on {len(found.choosing.prompts)} other prompts by the "
            f"balanced score ({grader}), on the same trained systems: the best of several looks a "
            "little better than it is"
        )
    return lines


def _key(
    contrast: ContrastData, layers: Sequence[PooledLayer], settings: SubspaceSettings
) -> dict[str, Any]:
    """What decides a subspace, its route and seed aside."""
    from safesail.alignment._kept import digest

    sides = [[list(one) for one in side] for side in (contrast.aligned, contrast.unaligned)]
    return {
        "contrast": digest([sides, contrast.paired, contrast.over]),
        "saes": {layer.sae: layer.fingerprint for layer in layers},
        # What explanations give to a concept changes with them.
        "features": {
            layer.sae: digest(features_of(layer.sae, layer.explanations, settings.concepts))
            for layer in layers
        },
        "subspace": asdict(settings),
    }


def _beginning(
    workspace: Workspace,
    layers: Sequence[PooledLayer],
    settings: SubspaceSettings,
    method: str,
    key: dict[str, Any],
    tell: Tell,
) -> Beginning:
    """How a method begins; a subspace that does not depend on the seed is made once."""
    from safesail.alignment import Beginning

    if method not in ROUTES:
        return Beginning()
    made: dict[int, Subspace] = {}

    def begin(seed: int) -> Subspace:
        own = seed if method in _DRAWN else 0
        if own not in made:
            route: Any = method
            # What is told of one draw is told of the others too.
            said: Callable[[str], None] = tell_nothing if made else tell
            drawn = replace(settings, seed=1000 * own)
            made[own] = make_subspace(workspace, layers, drawn, route, tell=said)
        return made[own]

    return Beginning(begin, key)
