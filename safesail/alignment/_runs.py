"""The runs of a comparison: one method, learning rate and seed each, trained once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safesail.alignment._evaluation import System
from safesail.alignment._kept import KeptAnswers
from safesail.errors import AlignmentError

if TYPE_CHECKING:
    from safesail.alignment._data import Example
    from safesail.alignment._subspace import Subspace
    from safesail.alignment._training import TrainingOptions

FULL = "full"
FULL_RATE = 0.1
"""Share of an adapter's learning rate that full fine-tuning gets: our choice, as it moves all."""


class Beginning(NamedTuple):
    """How a method begins.

    Attributes:
        subspace: by seed; None for plain LoRA and full fine-tuning.
        key: what decides it, as JSON: texts, SAEs, settings.
    """

    subspace: Callable[[int], Subspace] | None = None
    key: Mapping[str, Any] = {}


@dataclass(frozen=True)
class ComparisonSettings:
    """How systems are trained: alike in parameters, steps and initial norm.

    Attributes:
        rank: of all adapters.
        modules: roles.
        options: of the training; learning rate and seed are those below.
        learning_rates: tried for each method; the best on prompts set aside for that counts.
        seeds: of the training, and of bases that are drawn.
        batch_size: prompts answered at once.
        max_new_tokens: most tokens of an answer.
    """

    rank: int
    modules: tuple[str, ...]
    options: TrainingOptions
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    batch_size: int = 16
    max_new_tokens: int = 256


class Run(NamedTuple):
    """One training and what came of it.

    Attributes:
        method: its name.
        rate: learning rate of adapters; `own_rate` is the method's.
        seed: of the training, and of what is drawn.
        kept: its answers, given once they are asked for.
        work: folder of its checkpoints.
        adapter: folder of its adapter; full fine-tuning has none, for its weights are not kept.
    """

    method: str
    rate: float
    seed: int
    kept: KeptAnswers
    work: Path
    adapter: Path

    @property
    def system(self) -> System:
        """As it is known while rates are chosen."""
        return System(rate_name(self.method, self.rate), self.kept, self.seed)


def complete(run: Run, prompts: Sequence[str], texts: Sequence[str]) -> None:
    """Train and answer, where that was not done; a training that diverges is a result too."""
    from safesail.alignment._trainer import NotFiniteError

    if "diverged" in run.kept.facts:
        return
    try:
        run.kept.complete(prompts, texts)
    except AlignmentError as error:
        if not isinstance(error.__cause__, NotFiniteError):
            raise
        run.kept.note(diverged=str(error.__cause__))
    shutil.rmtree(run.work, ignore_errors=True)


def train_run(
    base: Any,
    tokenizer: Any,
    subspace_for: Callable[[int], Subspace] | None,
    run: Run,
    examples: Sequence[Example],
    settings: ComparisonSettings,
    about: Mapping[str, Any],
) -> Any:
    """A base trained by a method, ready to answer.

    An adapter that was saved is loaded, an interrupted training goes on.

    Raises:
        SafesailError: see `make_adapter`, `make_plain_adapter`, `load_adapter` and `fit`.
    """
    from safesail.alignment._adapter import make_adapter, make_plain_adapter
    from safesail.alignment._fill import fill_subspace
    from safesail.alignment._saving import load_adapter, provenance_of, save_adapter
    from safesail.alignment._subspace import SUBSPACE_FOLDER
    from safesail.alignment._training import fit

    if run.adapter.exists():
        model = load_adapter(base, run.adapter)
        provenance = provenance_of(model)
        own = (provenance.training or {}).get("directions")
        run.kept.note(
            parameters=provenance.trainable, **({} if own is None else {"directions": own})
        )
        return model.eval()
    method, seed = run.method, run.seed
    common: dict[str, Any] = {"modules": settings.modules, "rank": settings.rank, "seed": seed}
    files: dict[str, bytes] = {}
    own = base.dtype
    if method == FULL:
        # In bfloat16 small updates of large weights round to nothing; adapters are in float32.
        model = base.float()
        for parameter in model.parameters():
            parameter.requires_grad_(requires_grad=True)
    elif subspace_for is None:
        model = make_plain_adapter(base, **common)
    else:
        # A route of fewer directions is filled up, so that all have as many parameters. Modules
        # without a basis get the nearest one, or a random one where none serves them, so that every
        # first factor of every method has the same length, which by itself decides how fast it
        # learns.
        found = subspace_for(seed)
        filled = fill_subspace(found, settings.rank, seed=seed)
        about = {**about, "directions": [layer.rank for layer in found.layers]}
        run.kept.note(directions=about["directions"])
        files = {f"{SUBSPACE_FOLDER}/{name}": content for name, content in filled.files().items()}
        model = make_adapter(base, filled, uncovered="nearest", match_norm=True, **common)
    options = replace(settings.options, learning_rate=own_rate(method, run.rate), seed=seed)
    # The folder is this run's alone: whatever else was begun in it cannot be gone on with.
    fit(model, tokenizer, examples, run.work, options=options, overwrite=True)
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    run.kept.note(parameters=size)
    if method == FULL:
        model = model.to(own)
    else:
        training = {**about, **asdict(options)}
        save_adapter(model, run.adapter, training=training, files=files)
    return model.eval()


def own_rate(method: str, rate: float) -> float:
    """The learning rate that a method gets where adapters get another."""
    return rate * FULL_RATE if method == FULL else rate


def rate_name(method: str, rate: float) -> str:
    """How a method at a rate is called while rates are chosen."""
    return f"{method} at {own_rate(method, rate):g}"
