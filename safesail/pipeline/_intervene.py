"""Change a study's feature while the model runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from safesail.errors import InputError
from safesail.pipeline._collect import sink_threshold
from safesail.pipeline._results import load_feature
from safesail.pipeline._workspace import Approve, Workspace, no_progress
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.diagnosis import Intervention, Mode

# Controls are drawn from features that fire on so many content tokens of the corpus.
_TOKENS_FOR_CONTROLS = 5_000
# Of a clamp or a scale: beyond it float32 overflows on the way.
_LARGEST = 1e6


def intervene(
    study: Study,
    prompts: Sequence[str],
    feature: int,
    *,
    sae: str | None = None,
    mode: Mode = "clamp",
    value: float = 1.0,
    generate: int = 40,
    targets: Sequence[str] = (),
    controls: int = 20,
    chat: bool = False,
    seed: int = 0,
    approve: Approve | None = None,
) -> Intervention:
    """Clamp, scale or ablate a feature, and see what the model says instead.

    Args:
        study: in which the feature was chosen.
        prompts: at least one; with several, the effect has an interval.
        feature: its index.
        sae: name of its SAE; None where only one is meant.
        mode: `clamp` (to `value` times q999), `scale` (by `value`) or `ablate` (to 0).
        value: see `mode`.
        generate: most tokens of the answers to the first prompt; 0 for none.
        targets: words, with the space before them where they stand in a text; the probability of
            the tokens that they begin with is measured. By default the feature's `top_logits`,
            on which no effect is compared with controls: any feature raises its own.
        controls: how many other features are tried at shifts of equal norm.
        chat: put the prompts into the model's chat template as a user's message.
        seed: of the draw of controls.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.

    Raises:
        InputError: no such feature was chosen, or it has no q999; a prompt is empty or too long;
            no token is there to be measured; or the value is no number of a sensible size.
        SafesailError: see `safesail.errors`.
    """
    from safesail.diagnosis import (
        FeatureEdit,
        FeatureIntervention,
        alive_features,
        draw_controls,
        target_tokens,
    )
    from safesail.reading import Reading

    if not abs(value) <= _LARGEST:
        raise InputError(f"value {value:g}: give a number between -{_LARGEST:g} and {_LARGEST:g}")
    if not prompts:
        raise InputError("no prompt: give one, or a file of them with --prompts")
    rows = load_feature(study, feature, sae).rows
    if not rows:
        raise InputError(f"feature {feature} was imported, not chosen here: it has no q999")
    row = rows[0]
    q999 = row["q999"]
    if q999 is None or not math.isfinite(q999) or q999 <= 0:
        raise InputError(f"feature {feature} of {row['sae']} has no q999: it never fired")
    workspace = Workspace(study, False, no_progress, approve)
    loaded, model = workspace.load_sae(row["sae"]), workspace.model
    words = list(targets) or list(row["top_logits"] or [])
    tokens = target_tokens(words, model)
    threshold = sink_threshold(workspace, row["sae"])
    drawn: tuple[int, ...] = ()
    if controls:
        reading = Reading.of(
            model, prepend_bos=loaded.prepend_bos, context_size=loaded.context_size
        )
        alive = alive_features(
            model,
            loaded,
            reading.texts(model, workspace.corpus, 2 * _TOKENS_FOR_CONTROLS),
            sink_threshold=threshold,
            tokens=_TOKENS_FOR_CONTROLS,
        )
        drawn = draw_controls(alive, feature, controls, seed)
    intervention = FeatureIntervention(
        model,
        loaded,
        FeatureEdit(feature, mode, value, q999),
        sink_threshold=threshold,
        controls=drawn,
        chat=chat,
    )
    return intervention.run(prompts, tokens, generate=generate, compare=bool(targets))
