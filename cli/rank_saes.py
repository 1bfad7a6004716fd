"""`safesail rank-saes`: which SAE is worth the budget."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import typer

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
from ._output import interval, note, number, percent, print_json, print_table, progress, say

if TYPE_CHECKING:
    from safesail.ranking import Ranking

_NAMES_SHOWN = 4
# Exit code where some candidates could not be ranked and the others were.
_SOME_FAILED = 3
_LEGEND = {
    "=": "within the noise of the first place",
    "L0, FVU, dead": "on the corpus sample: active features per token, share of the variance not "
    "rebuilt, features that never fire",
    "separating features": "distinct features that tell a concept's texts from their twins and "
    "from other concepts' texts with an average precision of 0.75 or more, less those by chance; "
    "for an SAE the sum over concepts",
    "mean rank": "mean over concepts of the SAE's place by separating features, equal numbers by "
    "best separation; the first table is sorted by it",
    "best separation": "average precision of the best feature, picked on one half of the pairs and "
    "judged on the other; chance is that of a random order",
    "I_CDF": "mean share of the pairs that a feature distinguishes (a metric of Safe-SAIL)",
    "best in": "share of resamples of the pairs in which the SAE comes first",
    "independent": "pairs, those that share a text or a template counted once",
    "as good": "other SAEs within the noise of the best one",
    "called, least f": "features of the best SAE that distinguish more pairs than chance would "
    "(false discovery rate), and the share of independent pairs that one more would have to win",
    "!": "fewer than 10 independent pairs: nothing in the line is sure",
    "[low, high]": "95 % interval over the pairs",
}


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

    Exit code 3 says that some candidates could not be ranked; the others were.

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
        print_json(ranking.to_json(chosen.concepts))
    else:
        print_ranking(ranking, chosen.concepts)
        note(f"written: {opened.rankings}, ranking.png and features/ beside it")
    if ranking.refused():
        raise typer.Exit(_SOME_FAILED)


def print_ranking(ranking: Ranking, concepts: tuple[str, ...] = ()) -> None:
    """The ranking as two tables: one line per candidate, one per concept."""
    lines = ranking.candidate_lines(concepts)
    say(f"Candidates, best first, over {', '.join(concepts) or f'{lines[0].concepts} concepts'}:")
    print_table(
        ("", "SAE", "hook point", "width", "L0", "FVU", "dead", "separating features",
         "best separation", "I_CDF", "mean rank", "best in"),
        [
            (
                f"{place}{'=' if line.tied and place > 1 else ''}",
                line.sae,
                line.hook_point,
                f"{line.width:,}",
                number(line.l0, 1),
                number(line.fvu, 3),
                percent(line.dead_share),
                interval(line.separating, line.separating_low, line.separating_high, 0),
                interval(line.separation, line.separation_low, line.separation_high),
                number(line.i_cdf, 4),
                number(line.mean_rank, 1),
                percent(line.best_probability),
            )
            for place, line in enumerate(lines, start=1)
        ],
        numbers=(3, 4, 5, 6, 7, 8, 9, 10, 11),
    )  # fmt: skip
    say("By concept:")
    print_table(
        ("concept", "pairs", "independent", "best SAE", "best in", "as good", "separating features",
         "best separation", "chance", "called", "least f"),
        [
            (
                f"{line.concept} !" if line.few_pairs else line.concept,
                f"{line.pairs:,}",
                f"{line.independent_pairs:,}",
                line.best,
                percent(line.best_probability),
                str(line.tied - 1),
                interval(line.separating, line.separating_low, line.separating_high, 0),
                interval(line.separation, line.separation_low, line.separation_high),
                number(line.chance),
                f"{line.called_features:,}",
                number(line.least_callable_f),
            )
            for line in ranking.concept_lines()
            if (line.concept in concepts if concepts else "/" not in line.concept)
        ],
        numbers=(1, 2, 4, 5, 6, 7, 8, 9, 10),
    )  # fmt: skip
    for word, meaning in _LEGEND.items():
        say(fill(f"{word:21}{meaning}", width=110, subsequent_indent=" " * 21))
    for name, reason in ranking.refused().items():
        note(f"not ranked: {name}: {reason}")
    for warning in ranking.warnings():
        note(f"warning: {_shortened(warning)}")


def _shortened(warning: str) -> str:
    """A warning whose list of concepts may be long."""
    of, _, text = warning.partition(": ")
    names = of.split(", ")
    if len(names) <= _NAMES_SHOWN:
        return warning
    return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more: {text}"
