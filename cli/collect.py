"""`safesail collect`: where the chosen features fire."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ._downloads import approval
from ._options import (
    ConceptOption,
    DebugOption,
    JsonOption,
    LayerOption,
    LimitOption,
    OverwriteOption,
    SaeOption,
    StudyOption,
    YesOption,
)
from ._output import note, number, print_json, print_table, progress, say
from ._selection import selection

_SHOWN = 20


def collect(
    study: StudyOption = Path(),
    sae: SaeOption = None,
    layer: LayerOption = None,
    concept: ConceptOption = None,
    limit: LimitOption = None,
    yes: YesOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Collect statistics and contexts of the chosen features (ranks first if needed).

    \b
    Examples:
      safesail collect --layer 12
      safesail collect --concept fraud --limit 50
    """
    from safesail.pipeline import collect as run
    from safesail.study import Study

    chosen = selection(sae=sae, layer=layer, concepts=concept, limit=limit)
    found = run(
        Study.open(study), chosen, overwrite=overwrite, progress=progress, approve=approval(yes)
    )
    if json:
        print_json({"sae": found.sae, "layer": found.layer, "features": found.rows})
        return
    by_feature = {row["feature"]: row for row in reversed(found.rows)}
    statuses = Counter(row["status"] for row in by_feature.values())
    counted = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    say(f"{found.sae}: {len(by_feature)} features ({counted})")
    print_table(
        ("feature", "concept", "separation", "fires on", "max", "raises most"),
        [
            (
                str(feature),
                by_feature[feature]["concept"],
                number(by_feature[feature]["separation"]),
                f"{100 * (by_feature[feature]['density'] or 0):.2f} % of tokens",
                number(by_feature[feature]["max_activation"]),
                " ".join(by_feature[feature]["top_logits"] or [])[:50],
            )
            for feature in found.features[:_SHOWN]
        ],
        numbers=(0, 2, 3, 4),
    )
    if len(found.features) > _SHOWN:
        say(f"... and {len(found.features) - _SHOWN} more")
    note(f"contexts: {found.folder}")
