"""`safesail merge`: join what the jobs of a shared-out collection made."""

from __future__ import annotations

from pathlib import Path

from ._downloads import approval
from ._options import DebugOption, JsonOption, StudyOption, YesOption
from ._output import note, say
from .collect import print_collections


def merge(
    study: StudyOption = Path(),
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Join the parts that `safesail collect --shard` made, and write their tables.

    \b
    Example:
      safesail merge
    """
    from safesail.pipeline import merge_shards
    from safesail.study import Study

    merged = merge_shards(Study.open(study), approve=approval(yes), tell=note)
    if not merged and not json:
        say("nothing to merge: all that was collected has its contexts")
    print_collections(merged, json=json)
