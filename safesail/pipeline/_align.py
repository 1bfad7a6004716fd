"""The stage `align`: from texts of both sides to a trained adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._layouts import ATTENTION
from safesail.errors import InputError
from safesail.pipeline._lock import alone
from safesail.pipeline._subspace import (
    ContrastData,
    PooledLayer,
    SubspaceSettings,
    make_subspace,
    pool_layers,
)
from safesail.pipeline._workspace import Approve, Tell, Workspace, no_progress, tell_nothing
from safesail.study import CorpusSource, Study

if TYPE_CHECKING:
    from safesail.alignment import Example, LossPoint, Subspace, Trained, TrainingOptions
    from safesail.alignment._names import Route

_HUB = "hub:"


@dataclass(frozen=True)
class AdapterSettings:
    """How an adapter begins.

    Attributes:
        modules: roles, of `q`, `k`, `v`, `o`, `gate`, `up`, `down`.
        uncovered: what modules without a basis get: `lora`, `nearest` or `none`.
        frozen: whether the basis is not trained.
    """

    modules: tuple[str, ...] = ATTENTION
    uncovered: str = "lora"
    frozen: bool = False


@dataclass(frozen=True)
class Alignment:
    """What was found and trained.

    Attributes:
        subspace: the subspace.
        layers: what it was found in, with the advice on the route.
        contrast_prompts: digests of the prompts that were contrasted.
        folder: of the adapter; None where nothing was trained.
        trained: the training; None alike.
    """

    subspace: Subspace
    layers: tuple[PooledLayer, ...]
    contrast_prompts: frozenset[str]
    folder: Path | None = None
    trained: Trained | None = None


def source_of(name: str) -> CorpusSource:
    """A file by its path, or a dataset on the Hugging Face hub as `hub:OWNER/NAME`."""
    if name.startswith(_HUB):
        return CorpusSource(hub=name.removeprefix(_HUB))
    return CorpusSource(path=name)


def read_data(
    study: Study,
    data: str,
    *,
    unaligned: str | None = None,
    over: str = "response",
    concepts: Sequence[str] = (),
) -> tuple[list[Example], ContrastData]:
    """What is trained on, and what is contrasted.

    Args:
        study: base of relative paths is the working directory; of `pairs` its concepts are taken.
        data: file, or `hub:OWNER/NAME`, with the columns `prompt` and `answer`, the answer wanted;
            where no other file is given also `unaligned`, the answer not wanted.
        unaligned: file with the columns `prompt` and `answer`, the answer not wanted. Where its
            prompts are the first file's, in order, or in any order and each once, rows are pairs.
        over: `response` contrasts answers, `prompt` the prompts of `data` with those of
            `unaligned`, `pairs` the sides of the study's contrast pairs, positive ones as
            unaligned.
        concepts: whose pairs; all by default.

    Raises:
        InputError: a file is missing or malformed, both sides are the same, both options name
            what is not wanted, or a concept has no pairs.
    """
    from safesail.alignment import Example, read_examples

    here = Path()
    if over == "pairs" and unaligned is not None:
        raise InputError("--over pairs contrasts the study's pairs: leave --unaligned out")
    wanted = read_examples(source_of(data), here)
    if over == "pairs":
        pairs = Workspace(study, False, no_progress).concepts.pairs
        for name in concepts:
            if not any(_is_within(pair.concept, name) for pair in pairs):
                known = ", ".join(sorted({pair.concept for pair in pairs}))
                raise InputError(f"the study has no contrast pairs of {name!r}; it has {known}")
        chosen = [
            pair
            for pair in pairs
            if not concepts or any(_is_within(pair.concept, name) for name in concepts)
        ]
        aligned, others = (
            [Example(text, "") for text in side]
            for side in ([one.negative for one in chosen], [one.positive for one in chosen])
        )
        return wanted, ContrastData(aligned, others, paired=True, over="prompt")
    if unaligned is not None:
        others = read_examples(source_of(unaligned), here)
    else:
        others = read_examples(source_of(data), here, answer_column="unaligned")
    by_prompt = {one.prompt: one for one in others}
    prompts = [one.prompt for one in wanted]
    if len(by_prompt) == len(others) and sorted(by_prompt) == sorted(prompts):
        others = [by_prompt[prompt] for prompt in prompts]
    # Only answers to the same prompts are pairs.
    paired = prompts == [one.prompt for one in others]
    if sorted(wanted) == sorted(others):
        raise InputError(
            "aligned and unaligned answers are the same: give answers that are not wanted in the "
            "column `unaligned`, or with --unaligned"
        )
    if over == "prompt" and sorted(one.prompt for one in wanted) == sorted(
        one.prompt for one in others
    ):
        raise InputError(
            "both sides have the same prompts: contrast their answers (--over response), or give "
            "a file of other prompts with --unaligned"
        )
    part: Any = "prompt" if over == "prompt" else "response"
    return wanted, ContrastData(wanted, others, paired=paired, over=part)


def find_subspace(
    study: Study,
    contrast: ContrastData,
    *,
    saes: Sequence[str] = (),
    settings: SubspaceSettings | None = None,
    route: Route = "sae",
    modules: Sequence[str] = ATTENTION,
    approve: Approve | None = None,
    tell: Tell = tell_nothing,
) -> Alignment:
    """Find the subspace of a study's features, and say which route fits the data; trains nothing.

    Args:
        study: names the model and its SAEs.
        contrast: texts of both sides.
        saes: names of SAEs; by default those that have explanations.
        settings: how the subspace is found.
        route: `sae`, a direct route or a control.
        modules: roles that are to be adapted: that the model has them is known before it reads.
        approve: is told what must be downloaded of published SAEs, and says whether it may be.
        tell: is given warnings.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment._base import Base

    workspace = Workspace(study, False, no_progress, approve, tell)
    settings = settings or SubspaceSettings()
    Base.of(workspace.model).check_adaptable(modules)
    layers = pool_layers(workspace, saes, contrast, settings, modules=modules)
    subspace = make_subspace(workspace, layers, settings, route, tell=tell)
    return Alignment(subspace, tuple(layers), contrast.prompt_digests())


def train_in(
    study: Study,
    alignment: Alignment,
    examples: Sequence[Example],
    folder: Path,
    *,
    settings: SubspaceSettings,
    adapter: AdapterSettings | None = None,
    options: TrainingOptions | None = None,
    overwrite: bool = False,
    watch: Callable[[LossPoint, int], None] | None = None,
) -> Alignment:
    """Train an adapter that begins in a subspace, and save both.

    Args:
        study: names the model.
        alignment: of `find_subspace`.
        examples: prompts and answers, benign ones among them.
        folder: of the adapter; the subspace goes into `subspace` in it.
        settings: those that the subspace was found with.
        adapter: how it begins.
        options: how it is trained.
        overwrite: replace an adapter that is there.
        watch: called with each step and the number of steps.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import make_adapter, train_adapter
    from safesail.alignment._base import Base
    from safesail.alignment._prompts import prompt_digest
    from safesail.alignment._saving import check_free
    from safesail.alignment._subspace import SUBSPACE_FOLDER

    check_free(folder, overwrite=overwrite)
    adapter = adapter or AdapterSettings()
    workspace = Workspace(study, False, no_progress)
    base = Base.of(workspace.model)
    workspace.release_model()
    uncovered: Any = adapter.uncovered
    model = make_adapter(
        base.load(),
        alignment.subspace,
        modules=adapter.modules,
        rank=settings.rank,
        uncovered=uncovered,
        basis="frozen" if adapter.frozen else "trainable",
        seed=settings.seed,
    )
    prompts = {prompt_digest(one.prompt) for one in examples}
    found = {
        f"{SUBSPACE_FOLDER}/{name}": content for name, content in alignment.subspace.files().items()
    }
    with alone(folder.parent / f".{folder.name}.training"):
        trained = train_adapter(
            model,
            base.tokenizer,
            examples,
            folder,
            options=options,
            overwrite=overwrite,
            about={
                "prompts": sorted(prompts),
                "contrast_prompts": sorted(alignment.contrast_prompts - prompts),
            },
            files=found,
            watch=watch,
        )
    return replace(alignment, folder=folder, trained=trained)


def _is_within(concept: str, name: str) -> bool:
    return concept == name or concept.startswith(f"{name}/")
