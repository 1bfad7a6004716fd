"""`safesail rank-saes`: which SAE is worth the budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._downloads import approval
from ._options import (
    ConceptOption,
    DebugOption,
    JsonOption,
    L0Option,
    LayersOption,
    OverwriteOption,
    SaePatternOption,
    StudyOption,
    WidthOption,
    YesOption,
)
from ._output import interval, note, number, print_json, print_table, progress, say

if TYPE_CHECKING:
    from safesail.ranking import Ranking

_NAMES_SHOWN = 4


def rank_saes(
    study: StudyOption = Path(),
    layers: LayersOption = None,
    width: WidthOption = None,
    l0: L0Option = None,
    sae: SaePatternOption = None,
    concept: ConceptOption = None,
    yes: YesOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Rank the candidates by how finely they separate your concepts, before any explanation.

    \b
    Examples:
      safesail rank-saes
      safesail rank-saes --layer 12 --concept fraud
      safesail rank-saes --layers 10-14,20 --width 16k --l0 50-100
    """
    from safesail.pipeline import Selection, rank
    from safesail.sparse_autoencoder import SaeFilter
    from safesail.study import Study

    opened = Study.open(study)
    wanted = SaeFilter.parse(layers=layers, width=width, l0=l0, name=sae)
    chosen = Selection(candidates=wanted, concepts=tuple(concept or ()))
    ranking = rank(opened, chosen, overwrite=overwrite, progress=progress, approve=approval(yes))
    if json:
        print_json(ranking.rows)
        return
    print_ranking(ranking, chosen.concepts)
    note(f"written: {opened.rankings}, ranking.png and features/ beside it")


def print_ranking(
    ranking: Ranking, concepts: tuple[str, ...] = (), layer: int | None = None
) -> None:
    """The ranking as two tables: one line per candidate, one per concept."""
    lines = ranking.candidate_lines(concepts, layer)
    say(f"Candidates, best first, over {', '.join(concepts) or f'{lines[0].concepts} concepts'}:")
    print_table(
        ("", "SAE", "hook point", "L0", "FVU", "dead", "I_CDF", "separation", "top 10",
         "mean rank", "tied with best"),
        [
            (
                str(place),
                line.sae,
                line.hook_point,
                number(line.l0, 1),
                number(line.fvu, 3),
                f"{100 * line.dead_share:.0f} %",
                number(line.i_cdf, 4),
                interval(line.separation, line.separation_low, line.separation_high),
                number(line.separation_top10),
                number(line.mean_rank, 1),
                f"{line.tied} of {line.concepts}",
            )
            for place, line in enumerate(lines, start=1)
        ],
        numbers=(0, 3, 4, 5, 6, 8, 9, 10),
    )  # fmt: skip
    say("By concept:")
    print_table(
        ("concept", "pairs", "best SAE", "separation", "chance", "features called", "tied"),
        [
            (
                line.concept,
                str(line.pairs),
                line.best,
                interval(line.separation, line.separation_low, line.separation_high),
                number(line.chance),
                str(line.called_features),
                str(line.tied),
            )
            for line in ranking.concept_lines(layer)
            if (line.concept in concepts if concepts else "/" not in line.concept)
        ],
        numbers=(1, 4, 5, 6),
    )
    say(
        "separation: average precision of the best feature at telling a concept's texts from their "
        "twins and from other concepts' texts, picked on one half of the pairs and judged on the "
        "other; [95 % interval over pairs]."
    )
    for name, reason in ranking.refused().items():
        note(f"not ranked: {name}: {reason}")
    for warning in ranking.warnings():
        note(f"warning: {_shortened(warning)}")


def _shortened(warning: str) -> str:
    """A warning whose list of concepts may be long."""
    of, _, text = warning.rpartition(": ")
    names = of.split(", ")
    if len(names) <= _NAMES_SHOWN:
        return warning
    return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more: {text}"
