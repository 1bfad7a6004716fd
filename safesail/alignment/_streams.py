"""To which state of the residual stream a hook point belongs."""

from __future__ import annotations

import re
from typing import NamedTuple

from safesail.errors import AlignmentError

_SITE = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)")


class StreamSite(NamedTuple):
    """Where in the residual stream a hook point lies.

    Attributes:
        stream: k is what block k reads, and what block k - 1 wrote.
        writers_only: the point is one block's output or the stream within a block, so what is
            found there holds for modules that write to the stream alone.
    """

    stream: int
    writers_only: bool


def stream_site(hook_point: str) -> StreamSite:
    """The state of the stream at a hook point.

    The output of attention or MLP, and the stream between the two, belong to the state that they
    are added into: that after their block.

    Args:
        hook_point: its TransformerLens name.

    Raises:
        AlignmentError: no module reads or writes the stream there.
    """
    match = _SITE.fullmatch(hook_point)
    if match is None:
        raise AlignmentError(
            f"no module reads or writes the residual stream at {hook_point}: use an SAE at "
            "hook_resid_pre, hook_resid_post, hook_attn_out or hook_mlp_out of a block"
        )
    block, site = int(match[1]), match[2]
    if site == "resid_pre":
        return StreamSite(block, writers_only=False)
    return StreamSite(block + 1, writers_only=site != "resid_post")
